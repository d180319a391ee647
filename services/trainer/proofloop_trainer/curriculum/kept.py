"""Answers of a stage that lie in no batch or data set yet: what a killed process was told is not
asked for again.

What a stranger would get wrong: short asking keeps nothing. Answers are written when asking has
taken so long that losing them would hurt, many in one object, and dropped when what they were asked
for is stored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from proofloop.engine.base import Generation, GenerationRequest
from proofloop.schema.records import Record, digest
from proofloop.store import Store, get_record, put_record
from proofloop.worker.calls.model_call import storable

EVERY_S = 10.0
"""How often answers are stored and progress is shown: a kill loses the answers of at most this
time.
"""


class KeptAnswers(Record):
    """Some of a stage's answers, by the call that they answer."""

    answers: dict[str, Generation]


class Kept:
    """The answers of one stage, under a prefix of its own in the store; for one thread. `say` tells
    of them.
    """

    def __init__(self, store: Store, prefix: str, say: Callable[[str], None]) -> None:
        self.say = say
        self._store, self._prefix = store, prefix
        self._found: dict[str, Generation] | None = None
        self._new: dict[str, Generation] = {}
        self._has_objects, self._due = False, 0.0

    def begin(self, requests: Sequence[GenerationRequest]) -> dict[str, Generation]:
        """Asking begins: the answers that are here already, by the id of their request."""
        if not self._new:
            self._due = time.monotonic() + EVERY_S
        if self._found is None:
            self._found = self._read()
        named = ((request.id, self._found.get(_name(request))) for request in requests)
        return {request: answer for request, answer in named if answer is not None}

    def add(self, request: GenerationRequest, answer: Generation) -> None:
        self._new[_name(request)] = answer

    @property
    def is_due(self) -> bool:
        return time.monotonic() >= self._due

    def write(self) -> None:
        """Store what came since the last time. Raises StoreError; the next time stores it too."""
        self._due = time.monotonic() + EVERY_S
        if self._new:
            key = f"{self._prefix}{digest(' '.join(self._new))}.json"
            put_record(self._store, key, KeptAnswers(answers=self._new))
            self._new, self._has_objects = {}, True

    def clear(self) -> None:
        """What was asked for is stored where it belongs."""
        if self._has_objects:
            self._store.delete_prefix(self._prefix)
        self._found, self._new, self._has_objects = {}, {}, False

    def _read(self) -> dict[str, Generation]:
        found: dict[str, Generation] = {}
        for key in self._store.list(self._prefix):
            self._has_objects = True
            found |= get_record(self._store, key, KeptAnswers).answers
        return found


def _name(request: GenerationRequest) -> str:
    """What tells a call from the others of its stage: its id has the seed, and that the prompt, but
    not who answers.
    """
    return f"{request.model} {request.sampling.temperature} {request.id}"


def keepable(answer: Generation) -> Generation:
    """As it can be stored: its thinking lies among its tokens already."""
    return replace(answer, text=storable(answer.text), reasoning="")
