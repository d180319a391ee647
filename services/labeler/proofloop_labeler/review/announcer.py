"""Announces labels that people's grades changed.

A grade is stored first. If the process is killed before it announces it, the next process does. One
thread of a process announces, so that no grade is announced twice.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from queue import SimpleQueue

import structlog

from proofloop.bus import Bus
from proofloop.errors import BusError, ObjectError, StoreError
from proofloop.runs.labels import in_force
from proofloop.schema import keys
from proofloop.schema.events import ProofLabeled, encode
from proofloop.schema.ids import PROOF
from proofloop.schema.records import Label
from proofloop.store import Store, get_record

log = structlog.get_logger()

RETRY_S = 5.0
"""The pause before a retry while the broker or the store is unavailable."""


class Announcer:
    """Announces in a thread, and retries while the broker or the store is unavailable."""

    def __init__(self, store: Store, bus: Bus) -> None:
        self._store = store
        self._bus = bus
        self._runs: SimpleQueue[str | None] = SimpleQueue()
        self._settled: set[tuple[str, str, int]] = set()
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
            except Exception:  # without this thread no grade would be announced any more
                log.exception("announcement_failed", run=run)

    def _announce_run(self, run: str) -> None:
        prefix = keys.announced(run)
        announced = {keys.name_below(prefix, key) for key in self._store.list(prefix)}
        for proof_id, numbers in self._grades(run).items():
            new = [
                number
                for number in numbers
                if f"{proof_id}/{number:05d}" not in announced
                and (run, proof_id, number) not in self._settled
            ]
            if not new:
                continue
            try:
                self._announce_proof(run, proof_id, new)
            except ObjectError as error:  # the other proofs' grades still count
                log.error("announcement_failed", run=run, proof=proof_id, reason=str(error))
            else:
                self._settled.update((run, proof_id, number) for number in new)

    def _grades(self, run: str) -> dict[str, list[int]]:
        """The numbers of the grades of each proof."""
        found: dict[str, list[int]] = defaultdict(list)
        prefix = keys.all_grades(run)
        for key in self._store.list(prefix):
            proof_id, answer, number = keys.name_below(prefix, key).split("/")
            if answer == str(PROOF):
                found[proof_id].append(int(number))
        return found

    def _announce_proof(self, run: str, proof_id: str, numbers: list[int]) -> None:
        """Publish the label that counts now, then record that these grades were announced. Grades
        that check a label change nothing.
        """
        label = get_record(self._store, keys.label(run, proof_id), Label)
        if label.outcome != "undecided":
            return
        event = ProofLabeled.of(in_force(self._store, label))
        self._bus.publish([event])
        for number in numbers:
            key = keys.announcement(run, proof_id, number)
            self._store.put_if_absent(key, encode(event), durable=True)
        log.info(
            "proof_labeled_by_person",
            run=run,
            proof=proof_id,
            outcome=event.outcome,
            score=event.score,
            by=event.by,
            grade=event.grade,
        )
