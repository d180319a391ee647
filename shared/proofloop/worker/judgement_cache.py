"""The judgements of proofs that wait for their label, so that each is read from the store once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping

from proofloop.schema import keys
from proofloop.schema.records import Judgement
from proofloop.store import Store, get_record

MOST_JUDGEMENTS = 32_768
"""About 60 MB: those of 500 proofs with n = 64. Then the proofs without news for the longest time
leave, and their judgements are read again.
"""


class JudgementCache:
    """Safe to share between threads. Stored judgements never change."""

    def __init__(self, store: Store, most: int = MOST_JUDGEMENTS) -> None:
        self._store, self._most = store, most
        self._of_proof: OrderedDict[str, Mapping[str, Judgement]] = OrderedDict()
        self._count = 0
        self._lock = threading.Lock()

    def of_proof(self, run_id: str, proof_id: str) -> list[Judgement]:
        """All stored judgements of a proof. Raises StoreError."""
        prefix = keys.judgements(run_id, proof_id)
        known = self._of_proof.get(prefix, {})
        found = {
            key: known.get(key) or get_record(self._store, key, Judgement)
            for key in self._store.list(prefix)
        }
        with self._lock:
            self._drop(prefix)
            self._of_proof[prefix] = found
            self._count += len(found)
            while self._count > self._most and len(self._of_proof) > 1:
                self._drop(next(iter(self._of_proof)))
        return [*found.values()]

    def forget(self, run_id: str, proof_id: str) -> None:
        """The proof has its label."""
        with self._lock:
            self._drop(keys.judgements(run_id, proof_id))

    def _drop(self, prefix: str) -> None:
        self._count -= len(self._of_proof.pop(prefix, {}))
