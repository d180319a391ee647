"""Each judgement of a proof without a label is read from the store once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from proofloop.schema import keys
from proofloop.schema.events import ReviewJudged
from proofloop.store import LocalStore, put_record
from proofloop.worker.judgement_cache import JudgementCache
from proofloop_labeler.label import label
from tests.builders import RUN, CountingEngine, judgement, proof, runspec, valid, workplace


class CountingStore(LocalStore):
    """Counts how often each key is read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: Counter[str] = Counter()

    def get(self, key: str) -> bytes:
        self.reads[key] += 1
        return super().get(key)


def judge(store: LocalStore, proof_id: str, index: int) -> None:
    made = judgement(index, 1.0, True, 1.0).model_copy(update={"proof_id": proof_id})
    put_record(store, keys.judgement(RUN, proof_id, index), made)


def indices(cache: JudgementCache, proof_id: str) -> list[int]:
    return [found.index for found in cache.of_proof(RUN, proof_id)]


def test_a_judgement_is_read_once_however_many_messages_look(tmp_path: Path) -> None:
    store = CountingStore(tmp_path)
    cache = JudgementCache(store)
    for index in range(8):
        for number in range(3):
            judge(store, f"p{number}", index)
            assert indices(cache, f"p{number}") == [*range(index + 1)]
    assert len(store.reads) == 24 and set(store.reads.values()) == {1}


def test_the_oldest_proofs_leave_a_full_cache_and_are_read_again(tmp_path: Path) -> None:
    store = CountingStore(tmp_path)
    cache = JudgementCache(store, most=4)
    for name in ("a", "b", "c"):
        judge(store, name, 0)
        judge(store, name, 1)
        assert indices(cache, name) == [0, 1]
    assert indices(cache, "c") == indices(cache, "b") == indices(cache, "a") == [0, 1]
    reads = {name: store.reads[keys.judgement(RUN, name, 0)] for name in ("a", "b", "c")}
    assert reads == {"a": 2, "b": 1, "c": 1}


def test_one_proof_may_fill_the_cache(tmp_path: Path) -> None:
    store = CountingStore(tmp_path)
    cache = JudgementCache(store, most=2)
    for index in range(5):
        judge(store, "a", index)
        assert indices(cache, "a") == [*range(index + 1)]
    assert set(store.reads.values()) == {1}


def test_a_proof_with_a_label_leaves_the_cache(tmp_path: Path) -> None:
    tools = workplace(tmp_path, CountingEngine(), runspec(labeling={"n": 2, "m": 3, "k": 1}))
    put_record(tools.store, keys.proof(RUN, "a"), proof(valid(1.0)).model_copy(update={"id": "a"}))
    events = []
    for index in (-1, 0, 1):
        judge(tools.store, "a", index)
        events += list(label(ReviewJudged(run_id=RUN, proof_id="a", index=index), tools))
    assert events[-1].name == "ProofLabeled"
    assert tools.runs.judgements._count == 0 and not tools.runs.judgements._of_proof
