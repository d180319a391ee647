"""What a worker reads of the store once, and what it reads again."""

from __future__ import annotations

from pathlib import Path

import pytest

from proofloop.schema import keys
from proofloop.schema.records import Proof
from proofloop.store import LocalStore, put_record
from proofloop.worker.run_cache import RunCache
from tests.builders import PROOF, RUN, proof


class CountingStore(LocalStore):
    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads = 0

    def get(self, key: str) -> bytes:
        self.reads += 1
        return super().get(key)


@pytest.mark.parametrize(("is_alone", "reads"), [(True, 1), (False, 3)])
def test_a_process_that_is_alone_reads_a_proof_once(
    tmp_path: Path, is_alone: bool, reads: int
) -> None:
    store = CountingStore(tmp_path)
    stored: Proof = put_record(store, keys.proof(RUN, PROOF), proof())
    runs = RunCache(store, is_alone=is_alone)
    assert [runs.proof(RUN, PROOF) for _ in range(3)] == [stored] * 3
    assert store.reads == reads
