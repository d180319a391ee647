"""What a worker reads of the store once, and what it reads again."""

from __future__ import annotations

from pathlib import Path

import pytest

from proofloop.method.prompts import load_pack
from proofloop.runs.costs import Spent
from proofloop.runs.create import create_run
from proofloop.schema import keys
from proofloop.schema.records import Problem, Proof
from proofloop.store import LocalStore, put_record
from proofloop.worker import run_cache
from proofloop.worker.calls.running_calls import RunningCalls
from proofloop.worker.calls.usage import UsageCounter
from proofloop.worker.run_cache import RunCache
from tests.builders import PROOF, RUN, judgement, proof, runspec


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


def test_a_service_uses_nothing_of_a_deleted_run_for_another_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_cache, "SPEC_CACHE_S", 0.0)
    store, usage = LocalStore(tmp_path), UsageCounter(RunningCalls())
    runs = RunCache(store, on_created_again=usage.forget)

    for pack, question in (("math", "Prove it."), ("nano", "Disprove it.")):
        create_run(store, runspec(prompts=pack), resume=False)
        put_record(store, keys.problem(RUN, "p1"), Problem(id="p1", question=question))
        put_record(store, keys.judgement(RUN, PROOF, 0), judgement(0))
        assert runs.pack(RUN) == load_pack(pack)
        assert runs.problem(RUN, "p1").question == question
        assert usage.spent(RUN) == {}
        assert len(runs.undecided.judgements(RUN, PROOF, 0)) == 1
        put_record(store, keys.judgement(RUN, PROOF, 1), judgement(1))
        assert len(runs.undecided.judgements(RUN, PROOF, 1)) == 2
        usage.add(RUN, "verifier", Spent(1, 10, 5, 0.5))
        for prefix in (keys.run(RUN), keys.SPECS):
            store.delete_prefix(prefix)
