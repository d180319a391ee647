"""Dead letters of a run in one process: they are kept in the store, since there is no broker."""

from __future__ import annotations

from proofloop.bus import DeadLetter
from proofloop.schema import keys
from proofloop.schema.events import Event, FineTuningPosed, read_event
from proofloop.schema.records import Record, digest
from proofloop.store import Store, put_record, records_below


class DeadLetterRecord(Record):
    """A dead letter in the store."""

    queue: str
    reason: str
    body: str
    deliveries: int

    @classmethod
    def of(cls, letter: DeadLetter) -> DeadLetterRecord:
        return cls(
            queue=letter.queue,
            reason=letter.reason,
            body=letter.body.decode("utf-8", "replace"),
            deliveries=letter.deliveries,
        )

    @property
    def event(self) -> Event | None:
        """None for a body that can never be one."""
        return read_event(self.body.encode())

    def keep(self, store: Store, run_id: str) -> None:
        put_record(store, f"{keys.dead_letters(run_id)}{self.queue}-{digest(self.body)}.json", self)


def letters_in(store: Store, run_id: str) -> list[DeadLetterRecord]:
    """The run's dead letters in the store."""
    return list(records_below(store, keys.dead_letters(run_id), DeadLetterRecord))


def forget_posed_again(store: Store, run_id: str) -> None:
    """Delete the dead letters of what a resumed run poses again; others are kept."""
    letters = letters_in(store, run_id)
    kept = [letter for letter in letters if not is_posed_again(letter.event)]
    if len(kept) < len(letters):
        store.delete_prefix(keys.dead_letters(run_id))
        for letter in kept:
            letter.keep(store, run_id)


def is_posed_again(event: Event | None) -> bool:
    """Whether a resumed run poses what the event is about: a proof, or the supervised training."""
    return proof_named(event) is not None or isinstance(event, FineTuningPosed)


def proof_named(event: Event | None) -> str | None:
    """The proof that an event names, if it names one."""
    return getattr(event, "proof_id", None)
