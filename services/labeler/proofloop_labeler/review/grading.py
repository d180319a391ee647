"""What a person says of a proof: written once, then announced, in this order.

A process that is killed in between left a grade that nobody announced; whoever starts next
announces it. Only one thread of a process announces, so that it says nothing twice.
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

AWAY_S = 5.0
"""The pause while the broker or the store is away."""


def grade_proof(
    store: Store, label: Label, score: Score, *, by: str, comment: str
) -> tuple[Grade, bool]:
    """The grade that the proof has from now on, and whether it is this one: of two graders the
    first is heard.
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
    return first, first == grade  # a form that is sent twice is no quarrel


class Announcer:
    """Announces what people decided, from a thread of its own; it waits while the broker or the
    store is away.
    """

    def __init__(self, store: Store, bus: Bus) -> None:
        self._store, self._bus = store, bus
        self._runs: SimpleQueue[str | None] = SimpleQueue()
        self._settled: set[str] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="announcer", daemon=True)
        self._thread.start()

    def look(self, run: str) -> None:
        """Announce soon what of this run was not announced, by whichever process it was written."""
        self._runs.put(run)

    def close(self, *, grace_s: float) -> None:
        """Announce what waits, if that can be done in time; what is left is announced by whoever
        starts next.
        """
        self._stopping.set()
        self._runs.put(None)
        self._thread.join(grace_s)

    def _work(self) -> None:
        while (run := self._runs.get()) is not None:
            try:
                self._announce(run)
            except (BusError, StoreError) as error:
                log.warning("announcement_waits", run=run, reason=str(error))
                if not self._stopping.wait(AWAY_S):
                    self._runs.put(run)

    def _announce(self, run: str) -> None:
        announced = {keys.name_of(key) for key in self._store.list(keys.announced(run))}
        for key in self._store.list(keys.grades(run)):
            if keys.name_of(key) not in announced and key not in self._settled:
                self._announce_grade(get_record(self._store, key, Grade))
                self._settled.add(key)

    def _announce_grade(self, grade: Grade) -> None:
        """Say it, then note that it was said; a grade that only checks a label changes nothing and
        is not news.
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
