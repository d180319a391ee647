"""What a search by need requests: critiques as long as a proof may be among the best, judgements of
the best, labels for the rest. A resumed search requests what is missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from proofloop.config.run_file import RunSpec
from proofloop.runs.planned import planned
from proofloop.runs.search.driver import SearchDriver
from proofloop.runs.search.needs import Needs
from proofloop.runs.search.records import searches_of
from proofloop.schema import keys
from proofloop.schema.events import ProofReviewed, ProofWritten
from proofloop.schema.records import Label
from proofloop.store import LocalStore, get_record, put_record
from tests.builders import (
    MALFORMED,
    PRAISED,
    RUN,
    critique,
    judgement,
    label,
    proof,
    runspec,
    valid,
)

N = 4


def searching(**search: Any) -> RunSpec:
    return runspec(
        problems={"domain": "nano", "count": 1, "proofs_per_problem": 3},
        search={"rounds": 2, "keep": 1, "analyses": 1, **search},
    )


class Trial:
    """A search whose roles are played by hand."""

    def __init__(self, root: Path, spec: RunSpec) -> None:
        self.store, self.spec = LocalStore(root), spec
        self.search = SearchDriver(spec, self.store)
        self.posed = list(planned(spec, self.store))
        for event in self.posed:
            self.search.add_posed(event)

    def name(self, number: int) -> str:
        return f"{self.posed[0].problem_id}-{number:03d}"

    def write(self, number: int, *scores: float | None, readable: bool = True) -> None:
        """Store a proof and its first critiques."""
        name = self.name(number)
        written = proof(PRAISED if readable else MALFORMED, id=name)
        put_record(self.store, keys.proof(RUN, name), written)
        self.search.needs.add_answer(keys.proof(RUN, name))
        for index, score in enumerate(scores):
            self.criticize(number, index, score)

    def criticize(self, number: int, index: int, score: float | None) -> None:
        name = self.name(number)
        key = keys.critique(RUN, name, index)
        made = critique(index, MALFORMED if score is None else valid(score))
        put_record(self.store, key, made.model_copy(update={"proof_id": name}))
        self.search.needs.add_answer(key)

    def judge(self, number: int, scores: Sequence[float]) -> None:
        """Store the judgements and the label of a proof, as the services do."""
        name = self.name(number)
        for index, score in enumerate(scores):
            judged = judgement(index, score, confirmed=True if score < 1 else None)
            key = keys.judgement(RUN, name, index)
            put_record(self.store, key, judged.model_copy(update={"proof_id": name}))
        put_record(self.store, keys.label(RUN, name), label(proof_id=name))
        self.search.add_label(name, "accepted", solved=False)

    def needs(self, room: int = 100) -> Needs:
        found = self.search.needs.find(room)
        for each in found.labels:
            self.search.add_label(each.proof_id, each.outcome, solved=each.solved)
        return found


def critiques(needs: Needs) -> Counter[str]:
    """How many critiques are requested, by the last three digits of the proof."""
    return Counter(event.proof_id[-3:] for event in needs.events if isinstance(event, ProofWritten))


def judgements(needs: Needs) -> set[tuple[str, int]]:
    return {
        (event.proof_id[-3:], event.index)
        for event in needs.events
        if isinstance(event, ProofReviewed)
    }


def labels(needs: Needs) -> set[str]:
    return {each.proof_id[-3:] for each in needs.labels}


def test_a_proof_that_is_outranked_gets_a_label_and_no_more_critiques(tmp_path: Path) -> None:
    trial = Trial(tmp_path, searching())
    trial.write(0, 1.0, 1.0, 1.0, 0.5)
    trial.write(1, 0.0)
    trial.write(2, 1.0)
    found = trial.needs()
    assert (critiques(found), judgements(found), labels(found)) == ({"002": 2}, set(), {"001"})
    stored = get_record(trial.store, keys.label(RUN, trial.name(1)), Label)
    assert (stored.outcome, stored.score, stored.by) == ("outranked", None, "search")
    assert trial.needs() == Needs()


def test_the_best_proof_is_judged_and_its_critiques_are_shown(tmp_path: Path) -> None:
    trial = Trial(tmp_path, searching())
    trial.write(0, 1.0, 1.0, 1.0, 0.5)
    trial.write(1, 0.0)
    trial.write(2, 1.0, 0.0)
    found = trial.needs()
    assert labels(found) == {"001", "002"}
    assert judgements(found) == {("000", index) for index in range(N)}
    assert trial.search.next_round() == []
    trial.judge(0, [1.0, 1.0, 1.0, 0.5])
    [refinement] = trial.search.next_round()
    assert [(each.proof_id, each.critiques) for each in refinement.parents] == [
        (trial.name(0), (3,))
    ]


def test_critiques_in_flight_are_limited(tmp_path: Path) -> None:
    trial = Trial(tmp_path, searching())
    trial.write(0)
    trial.write(1)
    assert critiques(trial.needs(room=3)).total() == 3 - 2  # the generator requested one of each
    assert trial.needs(room=3) == Needs()
    trial.criticize(0, 0, 1.0)
    assert critiques(trial.needs(room=3)).total() == 1


def test_idle_slots_judge_the_best_complete_proof_so_far(tmp_path: Path) -> None:
    trial = Trial(tmp_path, searching())
    trial.write(0, 1.0, 1.0, 1.0, 0.5)
    trial.write(1, 1.0, 1.0)
    assert not judgements(trial.needs(room=1))  # a critique is still to be requested
    busy, idle = trial.needs(room=2), trial.needs(room=3)
    assert (critiques(busy), judgements(busy)) == ({"001": 1}, set())
    assert judgements(idle) == {("000", index) for index in range(N)}
    trial.criticize(1, 2, 1.0)
    trial.criticize(1, 3, 1.0)
    found = trial.needs(room=3)
    assert labels(found) == {"000", "002"}
    assert judgements(found) == {("001", index) for index in range(N)}


def test_a_problem_ends_at_once_with_its_first_proof_that_passes_all_critiques(
    tmp_path: Path,
) -> None:
    trial = Trial(tmp_path, searching())
    trial.write(0, 1.0)
    trial.write(1, 1.0, 1.0, 1.0, 1.0)
    found = trial.needs()
    assert labels(found) == {"000", "002"}  # of which 002 is not written yet
    assert judgements(found) == {("001", index) for index in range(N)}
    assert not critiques(found)
    trial.judge(1, [1.0] * N)
    assert trial.search.next_round() == []
    assert not trial.search._searches


def test_an_unreadable_critique_counts_as_0_and_solves_nothing(tmp_path: Path) -> None:
    trial = Trial(tmp_path, searching())
    trial.write(0, 1.0, 1.0, 1.0, None)
    trial.write(1, 0.5, 0.5)
    trial.write(2, readable=False)
    found = trial.needs()
    assert (labels(found), trial.search.next_round()) == ({"001"}, [])
    trial.search.add_label(trial.name(2), "unreadable", solved=False)
    trial.judge(0, [1.0, 1.0, 1.0, 0.0])
    [refinement] = trial.search.next_round()
    assert refinement.parents[0].proof_id == trial.name(0)


def test_after_the_last_round_only_the_best_proof_counts(tmp_path: Path) -> None:
    trial = Trial(tmp_path, searching(rounds=1, keep=3))
    scores = [(1.0, 1.0, 1.0, 0.5), (1.0, 1.0, 0.5, 0.5), (1.0, 0.5, 0.5, 0.5)]
    for number, given in enumerate(scores):
        trial.write(number, *given)
    assert labels(trial.needs()) == set()
    for number, given in enumerate(scores):
        trial.judge(number, given)
    for event in trial.search.next_round():
        trial.search.add_posed(event)
    trial.write(3, 0.5)
    trial.write(4, 0.0, 0.0)
    found = trial.needs()
    assert labels(found) == {"003", "004"}  # the best one has 3.5


def test_a_dead_proof_outranks_no_other(tmp_path: Path) -> None:
    trial = Trial(tmp_path, searching())
    trial.write(0, 1.0, 1.0, 1.0, 0.5)
    trial.write(1, 0.0)
    trial.write(2)
    trial.search.add_dead(trial.name(0))
    assert labels(trial.needs()) == set()


def test_a_resumed_search_requests_what_is_missing(tmp_path: Path) -> None:
    spec = searching()
    before = Trial(tmp_path, spec)
    before.write(0, 1.0, 1.0, 1.0, 0.5)
    before.write(1, 0.0)
    before.write(2, 1.0)
    before.needs()
    before.criticize(2, 2, 1.0)
    resumed = Trial(tmp_path, spec)
    resumed.search.add_label(resumed.name(1), "outranked", solved=False)
    found = resumed.needs()
    assert [event for event in found.events if isinstance(event, ProofWritten)] == [
        ProofWritten(run_id=RUN, proof_id=resumed.name(2), index=index, verifier_version="v-1")
        for index in (1, 3)
    ]
    assert (judgements(found), labels(found)) == (set(), set())


def test_a_run_on_services_looks_in_the_store(tmp_path: Path) -> None:
    trial = Trial(tmp_path, searching())
    trial.write(0, 1.0)
    assert critiques(trial.needs()) == {"000": 2}
    name = trial.name(0)
    for index in range(1, N):
        made = critique(index, valid(1.0)).model_copy(update={"proof_id": name})
        put_record(trial.store, keys.critique(RUN, name, index), made)
    assert judgements(trial.needs()) == set()
    trial.search.needs.look()
    assert judgements(trial.needs()) == {("000", index) for index in range(N)}


def test_events_of_other_proofs_change_nothing(tmp_path: Path) -> None:
    trial = Trial(tmp_path, searching())
    trial.search.needs.add_answer(keys.proof(RUN, "another-000"))
    trial.search.needs.add_answer(keys.meta_critique(RUN, trial.name(0), 0, 0))
    assert trial.needs() == Needs()


def overlapping(root: Path) -> Trial:
    """Two of three first proofs have labels, the third misses its last critiques."""
    trial = Trial(root, searching(overlap=True))
    trial.write(0, 1.0, 1.0, 0.5, 0.5)
    trial.write(1, 0.0)
    trial.write(2, 1.0)
    assert labels(trial.needs()) == {"001"}
    trial.needs()
    trial.judge(0, [1.0, 1.0, 0.5, 0.5])
    return trial


def test_with_overlap_idle_slots_begin_the_next_round_early(tmp_path: Path) -> None:
    trial = overlapping(tmp_path)
    trial.needs(room=2)  # the slots are busy with the two critiques in flight
    assert trial.search.next_round() == []
    trial.needs(room=3)
    [refinement] = trial.search.next_round()
    assert refinement.parents[0].proof_id == trial.name(0)
    trial.search.add_posed(refinement)
    trial.needs(room=3)  # of which the unwritten proof takes the last
    assert trial.search.next_round() == []


def test_a_late_proof_is_compared_in_the_next_round(tmp_path: Path) -> None:
    trial = overlapping(tmp_path)
    trial.needs()
    [refinement] = trial.search.next_round()
    trial.search.add_posed(refinement)
    for index, score in ((1, 1.0), (2, 1.0), (3, 0.5)):
        trial.criticize(2, index, score)
    trial.write(3, 0.0)
    found = trial.needs()
    assert labels(found) == {"003"}
    assert judgements(found) == {("002", index) for index in range(N)}
    trial.judge(2, [1.0, 1.0, 1.0, 0.5])
    [second] = trial.search.next_round()
    assert second.parents[0].proof_id == trial.name(2)


def test_a_resumed_search_poses_its_overlapping_round_again(tmp_path: Path) -> None:
    before = overlapping(tmp_path)
    before.needs()
    posed = before.search.next_round()
    resumed = Trial(tmp_path, before.spec)
    resumed.search.add_label(resumed.name(0), "accepted", solved=False)
    resumed.search.add_label(resumed.name(1), "outranked", solved=False)
    resumed.needs()
    resumed.search.needs.look()
    resumed.needs()
    assert resumed.search.next_round() == posed


def test_a_resumed_search_poses_the_round_that_overlapped_the_solving_one(tmp_path: Path) -> None:
    before = overlapping(tmp_path)
    before.needs()
    posed = before.search.next_round()
    before.judge(2, [1.0] * N)
    resumed = Trial(tmp_path, before.spec)
    for number in (0, 1):
        resumed.search.add_label(resumed.name(number), "accepted", solved=False)
    resumed.search.add_label(resumed.name(2), "accepted", solved=True)
    assert resumed.search.next_round() == posed
    assert not resumed.search.is_wanted(posed[0])
    assert resumed.search.next_round() == []
    (found,) = searches_of(resumed.store, RUN)
    assert (found.best, found.solved, found.proofs) == (resumed.name(2), True, 3)


def test_a_search_with_nothing_to_refine_yet_waits_for_all_its_proofs(tmp_path: Path) -> None:
    trial = Trial(tmp_path, searching(overlap=True, keep=2))
    trial.write(0, None, None, None, None)
    trial.write(1, readable=False)
    trial.search.add_label(trial.name(1), "unreadable", solved=False)
    trial.write(2, 1.0)
    trial.needs()
    for index in range(N):
        unread = judgement(index, None).model_copy(update={"proof_id": trial.name(0)})
        put_record(trial.store, keys.judgement(RUN, trial.name(0), index), unread)
    undecided = label(proof_id=trial.name(0), outcome="undecided", kind="undecided", score=None)
    put_record(trial.store, keys.label(RUN, trial.name(0)), undecided)
    trial.search.add_label(trial.name(0), "undecided", solved=False)
    for _ in range(2):
        trial.needs()
    assert trial.search.next_round() == []
    assert list(searches_of(trial.store, RUN)) == []
    for index in range(1, N):
        trial.criticize(2, index, 1.0)
    assert judgements(trial.needs()) == {("002", index) for index in range(N)}


def test_a_round_overlaps_only_what_is_posed(tmp_path: Path) -> None:
    before = overlapping(tmp_path)
    resumed = SearchDriver(before.spec, before.store)
    resumed.add_posed(before.posed[0])
    resumed.add_label(before.name(0), "accepted", solved=False)
    resumed.add_label(before.name(1), "outranked", solved=False)
    resumed.needs.look()
    resumed.needs.find(100)
    assert resumed.next_round() == []


def test_without_overlap_a_round_waits_for_all_labels(tmp_path: Path) -> None:
    trial = Trial(tmp_path, searching())
    trial.write(0, 1.0, 1.0, 1.0, 0.5)
    trial.write(1, 0.0)
    trial.write(2, 1.0)
    trial.needs()
    trial.judge(0, [1.0, 1.0, 1.0, 0.5])
    trial.needs()
    assert trial.search.next_round() == []
