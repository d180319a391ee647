"""People's grades: stored once, then announced.

If the process is killed in between, the next process announces the stored grade. One thread of a
process announces, so that no grade is announced twice.
"""

from __future__ import annotations

import threading
from queue import SimpleQueue

import structlog

from proofloop.bus import Bus
from proofloop.errors import BusError, StoreError
from proofloop.method.label_rule import decide_by_person
from proofloop.schema import keys
from proofloop.schema.events import ProofLabeled, encode
from proofloop.schema.records import Grade, Judgement, Label, Score
from proofloop.store import Store, get_record

log = structlog.get_logger()

RETRY_S = 5.0
"""The pause before a retry while the broker or the store is unavailable."""


def grade_proof(
    store: Store, label: Label, score: Score, *, by: str, comment: str
) -> tuple[Grade, bool]:
    """The stored grade of the proof, and whether it is this one. If two people grade a proof, the
    first grade counts.
    """
    if label.outcome == "undecided":
        judgements = (
            get_record(store, key, Judgement)
            for key in store.list(keys.judgements(label.run_id, label.proof_id))
        )
        label = decide_by_person(label, judgements, score=score, by=by)
    grade = Grade(score=score, by=by, comment=comment, label=label)
    key = keys.grade(label.run_id, label.proof_id)
    if store.put_if_absent(key, grade.model_dump_json().encode(), durable=True):
        return grade, True
    first = get_record(store, key, Grade)
    return first, first == grade  # true for a form that was sent twice


class Announcer:
    """Announces grades in a thread, and retries while the broker or the store is unavailable."""

    def __init__(self, store: Store, bus: Bus) -> None:
        self._store = store
        self._bus = bus
        self._runs: SimpleQueue[str | None] = SimpleQueue()
        self._settled: set[str] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="announcer", daemon=True)
        self._thread.start()

    def announce(self, run: str) -> None:
        """Announce the run's grades that no process has announced yet. Returns at once."""
        self._runs.put(run)

    def close(self, *, grace_s: float) -> None:
        """Announce the waiting grades within `grace_s`. The next process announces the rest."""
        self._stopping.set()
        self._runs.put(None)
        self._thread.join(grace_s)

    def _work(self) -> None:
        while (run := self._runs.get()) is not None:
            try:
                self._announce_run(run)
            except (BusError, StoreError) as error:
                log.warning("announcement_delayed", run=run, reason=str(error))
                if not self._stopping.wait(RETRY_S):
                    self._runs.put(run)

    def _announce_run(self, run: str) -> None:
        announced = {keys.name_of(key) for key in self._store.list(keys.announced(run))}
        for key in self._store.list(keys.grades(run)):
            if keys.name_of(key) not in announced and key not in self._settled:
                self._announce_grade(get_record(self._store, key, Grade))
                self._settled.add(key)

    def _announce_grade(self, grade: Grade) -> None:
        """Publish the new label, then record that it was published. A grade that checks a label
        changes nothing.
        """
        if grade.checks_label:
            return
        event = ProofLabeled.of(grade.label)
        self._bus.publish([event])
        self._store.put_if_absent(
            keys.announcement(event.run_id, event.proof_id), encode(event), durable=True
        )
        log.info(
            "proof_labeled_by_person",
            run=event.run_id,
            proof=event.proof_id,
            score=event.score,
            by=event.by,
        )
