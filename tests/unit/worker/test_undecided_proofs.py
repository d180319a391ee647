"""Each judgement of a proof without a label is read from the store once, and few messages list
them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from proofloop.schema import keys
from proofloop.schema.events import ReviewJudged
from proofloop.schema.records import CritiqueRequest
from proofloop.store import LocalStore, put_record
from proofloop.worker.undecided_proofs import UndecidedProofs
from proofloop_labeler.label import label
from tests.builders import RUN, CountingEngine, judgement, proof, runspec, valid, workplace


class CountingStore(LocalStore):
    """Counts how often each key is read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: Counter[str] = Counter()
        self.listed = 0

    def list(self, prefix: str) -> Iterator[str]:
        self.listed += 1
        return super().list(prefix)

    def get(self, key: str) -> bytes:
        self.reads[key] += 1
        return super().get(key)


def judge(store: LocalStore, proof_id: str, index: int) -> None:
    made = judgement(index, 1.0, True, 1.0).model_copy(update={"proof_id": proof_id})
    put_record(store, keys.judgement(RUN, proof_id, index), made)


def indices(proofs: UndecidedProofs, proof_id: str, index: int) -> list[int]:
    return [found.index for found in proofs.judgements(RUN, proof_id, index)]


def test_a_judgement_is_read_once_however_many_messages_look(tmp_path: Path) -> None:
    store = CountingStore(tmp_path)
    proofs = UndecidedProofs(store)
    for index in range(8):
        for number in range(3):
            judge(store, f"p{number}", index)
            assert indices(proofs, f"p{number}", index) == [*range(index + 1)]
    assert len(store.reads) == 24 and set(store.reads.values()) == {1}


def test_the_oldest_proofs_leave_a_full_proofs_and_are_read_again(tmp_path: Path) -> None:
    store = CountingStore(tmp_path)
    proofs = UndecidedProofs(store, most=4)
    for name in ("a", "b", "c"):
        judge(store, name, 0)
        judge(store, name, 1)
        assert indices(proofs, name, 1) == [0, 1]
    for name in ("c", "b", "a"):
        assert indices(proofs, name, 0) == [0, 1]
    reads = {name: store.reads[keys.judgement(RUN, name, 0)] for name in ("a", "b", "c")}
    assert reads == {"a": 2, "b": 1, "c": 1}


def test_one_proof_may_fill_the_proofs(tmp_path: Path) -> None:
    store = CountingStore(tmp_path)
    proofs = UndecidedProofs(store, most=2)
    for index in range(5):
        judge(store, "a", index)
        assert indices(proofs, "a", index) == [*range(index + 1)]
    assert set(store.reads.values()) == {1}


def test_a_proof_with_a_label_leaves_the_proofs(tmp_path: Path) -> None:
    tools = workplace(tmp_path, CountingEngine(), runspec(labeling={"n": 2, "m": 3, "k": 1}))
    put_record(tools.store, keys.proof(RUN, "a"), proof(valid(1.0)).model_copy(update={"id": "a"}))
    events = []
    for index in (-1, 0, 1):
        judge(tools.store, "a", index)
        events += list(label(ReviewJudged(run_id=RUN, proof_id="a", index=index), tools))
    assert events[-1].name == "ProofLabeled"
    assert tools.runs.undecided._count == 0 and not tools.runs.undecided._proofs


def test_a_judgement_that_was_listed_before_lists_nothing(tmp_path: Path) -> None:
    store = CountingStore(tmp_path)
    proofs = UndecidedProofs(store)
    for index in range(8):
        judge(store, "a", index)
    for index in range(8):
        assert indices(proofs, "a", index) == [*range(8)]
    assert store.listed == 1


def test_a_process_among_others_sees_their_judgements(tmp_path: Path) -> None:
    store = CountingStore(tmp_path)
    proofs = UndecidedProofs(store)
    judge(store, "a", 0)
    assert indices(proofs, "a", 0) == [0]
    judge(store, "a", 1)  # its message goes to another process
    judge(store, "a", 2)
    assert indices(proofs, "a", 2) == [0, 1, 2]


def test_a_process_alone_lists_a_proof_once(tmp_path: Path) -> None:
    store = CountingStore(tmp_path)
    proofs = UndecidedProofs(store, is_alone=True)
    for index in range(8):
        judge(store, "a", index)
        assert indices(proofs, "a", index) == [*range(index + 1)]
    assert store.listed == 1 and set(store.reads.values()) == {1}


def test_requests_of_other_processes_are_found_and_each_is_read_once(tmp_path: Path) -> None:
    store = CountingStore(tmp_path)
    proofs = UndecidedProofs(store)
    judge(store, "a", 0)
    indices(proofs, "a", 0)
    for number in range(4):
        request = CritiqueRequest(up_to=number + 4, trigger=number)
        put_record(store, keys.critique_request(RUN, "a", number), request)
        assert [each.trigger for each in proofs.requests(RUN, "a")] == [*range(number + 1)]
    # Once in vain, before it was stored.
    assert store.reads[keys.critique_request(RUN, "a", 1)] == 2
