"""The search over proofs: which are refined, when a round is due, and that a resumed search poses
the same.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from proofloop.config.run_file import RunSpec
from proofloop.errors import ConfigError
from proofloop.method.search_rule import Candidate, best, candidate, refinements
from proofloop.runs.planned import planned
from proofloop.runs.progress import ProgressTracker
from proofloop.runs.search.driver import Outlook, SearchDriver
from proofloop.runs.search.records import refinements_posed, searches_of
from proofloop.schema import keys
from proofloop.schema.events import ParentProof, ProblemPosed
from proofloop.schema.records import LabelOutcome
from proofloop.store import LocalStore, put_record
from tests import builders
from tests.builders import MALFORMED, RUN, judgement, proof, runspec, valid


def test_a_candidates_score_is_the_mean_of_its_critiques_with_unread_ones_as_0() -> None:
    judged = [
        judgement(-1, 1.0),  # its own, which counts for nothing
        judgement(0, 1.0),
        judgement(1, 0.5, confirmed=True),
        judgement(2, 0.0, confirmed=False),
        judgement(3, None),
        judgement(4, 0.5),  # its issue is neither confirmed nor refuted
    ]
    found = candidate("p-000", judged)
    assert found == Candidate("p-000", 2.0, 5, issues=(1,), overturned=(2, 4), silent=(0,))
    assert found.score == 0.4
    assert candidate("p-000", []).score == 0.0


def test_the_best_come_first_and_of_equals_the_older() -> None:
    scores = {"p-1000": 0.5, "p-999": 0.5, "p-002": 1.0, "p-101": 0.5}
    pool = [Candidate(name, score, 1, (), (), ()) for name, score in scores.items()]
    assert [each.proof_id for each in best(pool, 3)] == ["p-002", "p-101", "p-999"]


def test_upheld_issues_are_shown_first_then_overturned_ones_each_alone() -> None:
    kept = [
        Candidate("a", 3.0, 6, issues=(4, 5), overturned=(2,), silent=(0, 1, 3)),
        Candidate("b", 0.5, 1, (), (), (7,)),
    ]
    drawn = refinements(kept, 4, random.Random(0))
    shown = [parent.critiques[0] for parent in drawn if parent.proof_id == "a"]
    assert (set(shown[:2]), shown[2], len(shown)) == ({4, 5}, 2, 4)
    assert shown[3] in (0, 1, 3)
    assert drawn[4:] == (ParentProof(proof_id="b", critiques=(7,)),)
    few = {refinements(kept, 1, random.Random(seed))[0].critiques for seed in range(20)}
    assert few == {(4,), (5,)}


def searching(**search: Any) -> RunSpec:
    return runspec(
        problems={"domain": "nano", "count": 1, "proofs_per_problem": 2},
        search={"rounds": 2, "keep": 2, "analyses": 1, **search},
    )


def write(store: LocalStore, name: str, score: float | None, *, labeled: bool = True) -> None:
    """A proof with one critique of that score; unreadable where it is None."""
    if labeled:
        made = (
            builders.label()
            if score is not None
            else builders.undecided_label(outcome="unreadable")
        )
        put_record(store, keys.label(RUN, name), made.model_copy(update={"proof_id": name}))
    verdict = MALFORMED if score is None else valid(1.0)
    put_record(store, keys.proof(RUN, name), proof(verdict, id=name))
    if score is not None:
        judged = judgement(0, score, confirmed=True if score < 1 else None)
        put_record(
            store, keys.judgement(RUN, name, 0), judged.model_copy(update={"proof_id": name})
        )


def label(
    search: SearchDriver,
    store: LocalStore,
    event: ProblemPosed,
    score: float | None,
    *,
    solved: bool = False,
) -> None:
    write(store, event.proof_id, score)
    outcome: LabelOutcome = "unreadable" if score is None else "accepted"
    search.add_label(event.proof_id, outcome, solved=solved)


def begun(spec: RunSpec, store: LocalStore) -> tuple[SearchDriver, list[ProblemPosed]]:
    search, first = SearchDriver(spec, store), list(planned(spec, store))
    for event in first:
        search.add_posed(event)
    return search, first


def after_first_proofs(
    spec: RunSpec, store: LocalStore, score: float
) -> tuple[SearchDriver, list[ProblemPosed], list[ProblemPosed]]:
    """The rounds, the first proofs, each with one critique of that score, and what is posed
    next.
    """
    search, first = begun(spec, store)
    for event in first:
        label(search, store, event, score)
    return search, first, search.next_round()


def test_rounds_follow_each_other_until_there_are_no_more(tmp_path: Path) -> None:
    store, spec = LocalStore(tmp_path), searching()
    search, first = begun(spec, store)
    label(search, store, first[0], 0.0)
    assert search.next_round() == []  # the other has no label yet
    label(search, store, first[1], 0.5)
    second = search.next_round()
    assert [(event.proof_id[-4:], event.parents[0].proof_id[-4:]) for event in second] == [
        ("-002", "-001"),
        ("-003", "-000"),
    ]
    # Another prompt, another group.
    assert {event.group for event in second} == {event.proof_id for event in second}
    label(search, store, second[0], 1.0)
    search.add_label(second[0].proof_id, "accepted", solved=False)  # said twice
    label(search, store, second[1], None)
    third = search.next_round()
    # The best of all rounds.
    assert [event.parents[0].proof_id[-4:] for event in third] == [
        "-002",
        "-001",
    ]
    assert refinements_posed(store, spec) == 4
    for event in third:
        label(search, store, event, 0.0)
    assert search.next_round() == []
    (found,) = searches_of(store, RUN)
    assert (found.proofs, found.solved, found.score) == (6, False, 1.0)
    assert [name[-4:] for name in found.best_by_round if name] == ["-001", "-002", "-002"]
    assert refinements_posed(store, spec) == 4


def test_the_outlook_narrows_as_searches_end(tmp_path: Path) -> None:
    store, spec = LocalStore(tmp_path), searching()
    search, first = begun(spec, store)
    most = spec.most_proofs_per_problem
    # One is not posed yet.
    assert search.outlook(4) == Outlook(searches=2, ended=0, expected=2 * most, most=2 * most)
    label(search, store, first[0], 1.0, solved=True)
    label(search, store, first[1], 1.0, solved=True)
    assert search.next_round() == []
    assert search.outlook(4) == Outlook(searches=2, ended=1, expected=4, most=2 + most)


def test_stored_labels_do_not_each_cost_an_outlook_and_the_last_one_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proofloop.runs.progress.OUTLOOK_S", 3600.0)
    store, spec = LocalStore(tmp_path), searching()
    tracker = ProgressTracker(spec, store, 2, {})
    before = tracker.progress()
    for event in planned(spec, store):
        tracker.add_posed(event.proof_id, event)
        tracker.add_label(event.proof_id, "unreadable", solved=False, was_stored=True)
        assert tracker.next_refinement() is None
        assert tracker.progress().most == before.most
    assert tracker.progress(at_end=True).searches_ended == 1
    assert tracker.progress(at_end=True).most == 2 < before.most


def test_a_solved_problem_asks_for_nothing_more_and_what_is_not_posed_yet_is_not(
    tmp_path: Path,
) -> None:
    store, spec = LocalStore(tmp_path), searching()
    search, _, second = after_first_proofs(spec, store, 0.5)
    assert search.is_wanted(second[0])
    label(search, store, second[0], 1.0, solved=True)
    assert not search.is_wanted(second[1])
    assert search.next_round() == []
    (found,) = searches_of(store, RUN)
    assert (found.best, found.solved, found.proofs) == (second[0].proof_id, True, 3)
    assert refinements_posed(store, spec) == 1


def test_a_solved_proof_has_a_score_though_another_one_that_is_solved_was_kept(
    tmp_path: Path,
) -> None:
    store, spec = LocalStore(tmp_path), searching(keep=1)
    search, first = begun(spec, store)
    label(search, store, first[1], 1.0, solved=True)
    label(search, store, first[0], 1.0, solved=True)
    assert search.next_round() == []
    (found,) = searches_of(store, RUN)
    assert (found.best, found.score) == (first[1].proof_id, 1.0)


def test_a_resumed_search_poses_the_same_round_after_more_critiques(tmp_path: Path) -> None:
    store, spec = LocalStore(tmp_path), searching()
    _, first, second = after_first_proofs(spec, store, 0.0)
    late = judgement(1, 1.0).model_copy(update={"proof_id": first[1].proof_id})
    put_record(store, keys.judgement(RUN, first[1].proof_id, 1), late)
    again, _ = begun(spec, store)
    for event in first:
        again.add_label(event.proof_id, "accepted", solved=False)
    assert again.next_round() == second


def test_unreadable_proofs_end_the_search(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    search, first = begun(searching(), store)
    for event in first:
        label(search, store, event, None)
    assert search.next_round() == []
    (found,) = searches_of(store, RUN)
    assert (found.best, found.best_by_round, found.solved) == (None, (None,), False)


def test_a_search_whose_proof_died_ends_when_a_resumed_run_labels_it(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    search, first = begun(searching(), store)
    label(search, store, first[0], None)
    search.add_dead(first[1].proof_id)  # its message died: it was never written
    assert search.next_round() == []
    assert list(searches_of(store, RUN)) == []
    label(search, store, first[1], 1.0, solved=True)
    assert search.next_round() == []
    (found,) = searches_of(store, RUN)
    assert (found.best, found.score, found.solved) == (first[1].proof_id, 1.0, True)


def test_a_proof_that_lost_a_message_is_not_refined_whatever_its_critiques(
    tmp_path: Path,
) -> None:
    store = LocalStore(tmp_path)
    search, first = begun(searching(), store)
    label(search, store, first[0], 0.5)
    write(store, first[1].proof_id, 1.0, labeled=False)
    search.add_dead(first[1].proof_id)
    assert {event.parents[0].proof_id for event in search.next_round()} == {first[0].proof_id}


def test_without_a_search_nothing_is_kept(tmp_path: Path) -> None:
    search, first = begun(runspec(), LocalStore(tmp_path))
    for event in first:
        search.add_label(event.proof_id, "accepted", solved=True)
    assert (search.next_round(), search._searches) == ([], {})


def test_a_search_does_not_train() -> None:
    with pytest.raises(
        ConfigError, match=r"\[search\] rounds = 2 and \[training.verifier\] do not go together"
    ):
        runspec(search={"rounds": 2}, training={"verifier": {"steps": 1}})


def test_a_plan_counts_every_round_there_may_be() -> None:
    # N = 4.
    assert (
        runspec(search={"rounds": 3, "keep": 4, "analyses": 8}).most_proofs_per_problem
        == 2 + (2 + 4 + 4) * 4
    )
