"""The labeler's cache of undecided proofs: a judgement needs few reads of the store, however many
there are.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from proofloop.schema import keys
from proofloop.schema.records import CritiqueRequest, Judgement
from proofloop.store import Store, find_record, get_record

MOST_JUDGEMENTS = 32_768
"""About 60 MB: those of 500 proofs with n = 64. Then the proofs without news for the longest time
leave, and their judgements are read again.
"""


@dataclass
class _Known:
    """The judgements of a proof by their keys, and its requests for critiques in order."""

    judgements: dict[str, Judgement] = field(default_factory=dict)
    requests: list[CritiqueRequest] = field(default_factory=list)


class UndecidedProofs:
    """The undecided proofs of this process. Safe to share between threads, because stored
    judgements and requests never change. `is_alone`: no other process labels proofs of the same
    runs.
    """

    def __init__(self, store: Store, most: int = MOST_JUDGEMENTS, *, is_alone: bool = False):
        self._store, self._most, self._is_alone = store, most, is_alone
        self._proofs: OrderedDict[str, _Known] = OrderedDict()
        self._count = 0
        self._lock = threading.Lock()

    def judgements(self, run_id: str, proof_id: str, index: int) -> list[Judgement]:
        """The judgements of a proof, for the message about judgement `index`. Later judgements have
        messages of their own. So the store is listed only for a proof or judgement that is new to
        this process, and in a process that is alone only for a new proof. Raises StoreError.
        """
        prefix = keys.judgements(run_id, proof_id)
        key = keys.judgement(run_id, proof_id, index)
        entry = self._proofs.get(prefix)
        if entry is None or (key not in entry.judgements and not self._is_alone):
            entry = entry or _Known()
            found = list(self._store.list(prefix))
        else:
            found = [key]
        new = [each for each in found if each not in entry.judgements]
        return self._add(
            prefix, entry, {each: get_record(self._store, each, Judgement) for each in new}
        )

    def requests(self, run_id: str, proof_id: str) -> list[CritiqueRequest]:
        """All requests for critiques of a proof, in order. Raises StoreError."""
        with self._lock:
            entry = self._proofs.get(keys.judgements(run_id, proof_id), _Known())
            requests = list(entry.requests)
        while request := find_record(
            self._store, keys.critique_request(run_id, proof_id, len(requests)), CritiqueRequest
        ):
            requests.append(request)
        with self._lock:
            entry.requests = max(entry.requests, requests, key=len)
        return requests

    def forget(self, run_id: str, proof_id: str) -> None:
        """Forget the proof, which has its label."""
        with self._lock:
            self._drop(keys.judgements(run_id, proof_id))

    def forget_run(self, run_id: str) -> None:
        """Forget all proofs of a run, which was deleted."""
        of_run = keys.proofs(run_id)
        with self._lock:
            for prefix in [prefix for prefix in self._proofs if prefix.startswith(of_run)]:
                self._drop(prefix)

    def _add(self, prefix: str, entry: _Known, new: dict[str, Judgement]) -> list[Judgement]:
        """Add to the entry of a proof, which another thread may have dropped or added."""
        with self._lock:
            entry = self._proofs.get(prefix, entry)
            self._drop(prefix)
            self._proofs[prefix] = entry  # the newest is the last
            entry.judgements.update(new)
            self._count += len(entry.judgements)
            while self._count > self._most and len(self._proofs) > 1:
                self._drop(next(iter(self._proofs)))
            return list(entry.judgements.values())

    def _drop(self, prefix: str) -> None:
        if found := self._proofs.pop(prefix, None):
            self._count -= len(found.judgements)
