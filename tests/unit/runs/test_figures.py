"""The exact checker's figures of a run: hand-written proofs and critiques, hand-computed
numbers.
"""

from __future__ import annotations

from math import sqrt
from pathlib import Path
from typing import Any

import pytest

from proofloop.method.domains import Checker, Defect
from proofloop.method.domains.nano import (
    NanoChecker,
    check_proof,
    parse_question,
    render_analysis,
    render_proof,
    render_question,
    true_lines,
)
from proofloop.runs.figures import (
    Clusters,
    Evaluation,
    Figure,
    evaluate_run,
    meta_verifier_accuracy,
    refinement_figures,
)
from proofloop.schema import keys
from proofloop.schema.records import Given, MetaCritique, Problem, Verdict
from proofloop.store import LocalStore, put_record
from tests.builders import MALFORMED, PROVENANCE, RUN, critique, evaluation, label, proof, valid

TRUNCATED = Verdict(outcome="truncated", reason="cut off")
NOTHING = Figure(value=None, low=None, high=None, cases=0)

NANO_CHECKER = NanoChecker()
QUESTION = render_question(
    parse_question("Modulo 10, start at 2. a + 3. b * 4. Show that the result is 0.")
)
RIGHT = "a 2 + 3 = 5\nb 5 * 4 = 0"
WRONG = "a 2 + 3 = 6\nb 6 * 4 = 4"  # step a is miscalculated, and carried on consistently
SHORT = "b 5 * 4 = 0"  # step a is missing: a minor flaw


# -- intervals
# --------------------------------------------------------------------------------------------------


def figure(*values: tuple[str, float]) -> Figure:
    clusters = Clusters()
    for cluster, value in values:
        clusters.add(cluster, value)
    return clusters.figure()


def test_without_a_case_nothing_is_measured() -> None:
    assert figure() == NOTHING


def test_the_interval_is_robust_to_clusters() -> None:
    """Three problems with residual sums 1 - 2/2, 2 - 2/2, 0 - 2/2: (0 + 1 + 1) * 3 / 2 = 3, and six
    cases.
    """
    found = figure(("p", 1), ("p", 0), ("q", 1), ("q", 1), ("r", 0), ("r", 0))
    error = sqrt(3) / 6
    assert found.value == 0.5
    assert found.low == max(0.0, 0.5 - 1.96 * error) == 0.0
    assert found.high == min(1.0, 0.5 + 1.96 * error) == 1.0
    assert found.cases == 6


def test_the_interval_counts_a_bigger_cluster_by_its_size() -> None:
    """Four values, mean 0.65; the residual sums of the clusters are 0.15 and -0.15."""
    clusters = Clusters()
    for value in (0.9, 0.5, 0.7):
        clusters.add("p", value)
    clusters.add("q", 0.5)
    found = clusters.figure()
    error = sqrt(2 * (0.15**2 + 0.15**2)) / 4  # 0.075
    assert found.value == pytest.approx(0.65)
    assert found.low == pytest.approx(0.65 - 1.96 * error)
    assert found.high == pytest.approx(0.65 + 1.96 * error)


def test_clusters_of_one_give_the_usual_interval_of_a_mean() -> None:
    values = [0.2, 0.4, 0.4, 0.6, 0.3, 0.5]
    mean = sum(values) / 6
    deviation = sqrt(sum((value - mean) ** 2 for value in values) / 5)
    found = figure(*((str(number), value) for number, value in enumerate(values)))
    assert found.high is not None and found.low is not None
    assert found.high - found.low == pytest.approx(2 * 1.96 * deviation / sqrt(6))


def test_alike_cases_of_one_cluster_do_not_narrow_the_interval() -> None:
    apart = figure(*((f"{number}", number % 2) for number in range(40)))
    together = figure(*((f"{number // 10}", number // 10 % 2) for number in range(40)))
    assert apart.value == together.value == 0.5
    assert apart.high is not None and together.high is not None
    assert together.high > apart.high


def test_one_cluster_alone_bounds_nothing_and_agreement_only_as_far_as_it_goes() -> None:
    assert figure(("p", 1.0), ("p", 0.5)) == Figure(value=0.75, low=0.0, high=1.0, cases=2)
    agreed = figure(*((f"p{number}", 1.0) for number in range(3)))
    # Clopper and Pearson: 0.025 ** (1/3).
    assert (agreed.low, agreed.high) == (
        pytest.approx(0.2924, abs=1e-4),
        1.0,
    )
    failed = figure(*((f"p{number}", 0.0) for number in range(200)))
    assert (failed.low, failed.high) == (0.0, pytest.approx(0.0183, abs=1e-4))


def test_clusters_with_the_same_mean_do_not_make_it_certain() -> None:
    same = figure(*((f"p{number}", value) for number in range(3) for value in (0.1, 0.5)))
    differ = 1 - 0.025 ** (1 / 3)
    assert (same.low, same.high) == (
        pytest.approx(0.3 * (1 - differ)),
        pytest.approx(0.3 + 0.7 * differ),
    )


# -- a run
# --------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path)
    for name in ("p1", "p2"):
        put_record(store, keys.problem(RUN, name), Problem(id=name, question=QUESTION))
    return store


def add_proof(
    store: LocalStore,
    name: str,
    solution: str,
    verdict: Verdict,
    problem: str = "p1",
    **judged: Any,
) -> str:
    written = proof(verdict, id=name, problem_id=problem, group=problem, solution=solution)
    put_record(store, keys.proof(RUN, name), written)
    if judged:
        put_record(
            store,
            keys.label(RUN, name),
            label(proof_id=name, problem_id=problem, group=problem, **judged),
        )
    return name


def add_critiques(
    store: LocalStore, proof_id: str, *critiques: tuple[float | None, list[Defect]]
) -> None:
    for index, (score, claims) in enumerate(critiques):
        text = evaluation("?" if score is None else f"{score:g}", render_analysis(claims))
        verdict = MALFORMED if score is None else valid(score)
        written = critique(index, verdict, text).model_copy(update={"proof_id": proof_id})
        put_record(store, keys.critique(RUN, proof_id, index), written)


def undecided() -> dict[str, Any]:
    return {"score": None, "outcome": "undecided", "kind": "undecided"}


def measured(
    store: LocalStore, checker: Checker = NANO_CHECKER
) -> dict[str, tuple[float | None, int]]:
    found = evaluate_run(store, RUN, checker)
    return {
        name: (getattr(found, name).value, getattr(found, name).cases)
        for name in Evaluation.model_fields
    }


def test_the_planted_proofs_are_what_they_are_meant_to_be() -> None:
    checked = [check_proof(QUESTION, text) for text in (RIGHT, WRONG, SHORT)]
    assert [finding.score for finding in checked] == [1.0, 0.0, 0.5]
    assert [finding.defects for finding in checked[1:]] == [
        (Defect("a", "miscalculated"),),
        (Defect("a", "missing", "2 + 3 = 5, then b 5"),),
    ]
    assert render_proof(true_lines(parse_question(QUESTION))) == RIGHT


def test_a_run_without_proofs_has_no_figure(store: LocalStore) -> None:
    assert evaluate_run(store, RUN, NANO_CHECKER) == Evaluation(
        **dict.fromkeys(Evaluation.model_fields, NOTHING)
    )


def test_every_figure_of_a_small_run_is_exact(store: LocalStore) -> None:
    fatal, minor = [Defect("a", "miscalculated")], [Defect("a", "missing", "2 + 3 = 5, then b 5")]
    add_proof(store, "a", RIGHT, valid(1.0), score=1.0)
    add_critiques(store, "a", (1.0, []), (0.0, fatal), (None, []))
    add_proof(store, "b", WRONG, valid(1.0), score=0.0, outcome="rejected")
    add_critiques(
        store, "b", (0.0, fatal), (0.0, [Defect("b", "miscalculated")]), (0.5, minor), (0.0, [])
    )
    add_proof(store, "c", SHORT, valid(0.5), "p2", score=1.0)
    add_critiques(store, "c", (0.5, minor), (1.0, []))
    add_proof(store, "d", RIGHT, valid(0.5), "p2", **undecided())
    assert measured(store) == {
        "pass_at_1": (2 / 4, 4),
        "self_eval_error": ((0 + 1 + 0 + 0.5) / 4, 4),
        "verifier_accuracy": (5 / 9, 9),
        "verifier_faithfulness": (2 / 4, 4),
        "label_agreement": (2 / 3, 3),
        "label_undecided": (1 / 4, 4),
    }


def test_the_meta_verifier_is_measured_by_the_true_quality_of_critiques(
    store: LocalStore,
) -> None:
    add_proof(store, "a", WRONG, valid(1.0))
    add_critiques(
        store,
        "a",
        (0.0, [Defect("a", "miscalculated")]),
        (0.0, [Defect("b", "miscalculated")]),
        (1.0, []),
    )
    for index, verdicts in enumerate(([valid(1.0), valid(0.0), MALFORMED], [valid(0.0)])):
        for number, verdict in enumerate(verdicts):
            meta = MetaCritique(analysis="", verdict=verdict, provenance=PROVENANCE)
            put_record(store, keys.meta_critique(RUN, "a", index, number), meta)
    found = meta_verifier_accuracy(store, RUN, NANO_CHECKER)
    assert (found.value, found.cases) == (2 / 3, 3)


def test_what_a_checker_cannot_check_is_left_out(store: LocalStore) -> None:
    add_proof(store, "a", RIGHT, valid(1.0), score=1.0)
    add_proof(store, "b", WRONG, MALFORMED)
    assert set(measured(store, Unknowing()).values()) == {(None, 0)}


class Unknowing(Checker):
    """A checker without a check."""


def test_refinement_is_measured_by_iteration_and_by_the_best_self_score(
    store: LocalStore,
) -> None:
    add_proof(store, "a", RIGHT, valid(1.0))
    put_record(store, keys.attempt(RUN, "a", 0), proof(valid(0.0), id="a", solution=WRONG))
    put_record(store, keys.attempt(RUN, "a", 1), proof(MALFORMED, id="a", solution=RIGHT))
    add_proof(store, "b", WRONG, valid(1.0))
    add_proof(store, "c", RIGHT, valid(0.5))
    add_proof(store, "d", WRONG, MALFORMED, "p2")
    found = refinement_figures(store, RUN, NANO_CHECKER, iterations=4)
    assert [figure.value for figure in found.pass_at_1] == [1 / 4, 1 / 4, 2 / 4, 2 / 4]
    assert (found.best_by_self_score.value, found.best_by_self_score.cases) == ((0.5 + 0) / 2, 2)


def test_problems_are_the_clusters_of_every_figure(store: LocalStore) -> None:
    for name, problem, solution in (("a", "p1", RIGHT), ("b", "p1", RIGHT), ("c", "p2", WRONG)):
        add_proof(store, name, solution, valid(1.0), problem)
    expected = figure(("p1", 1), ("p1", 1), ("p2", 0))
    assert evaluate_run(store, RUN, NANO_CHECKER).pass_at_1 == expected


def test_given_proofs_of_one_question_are_a_cluster(store: LocalStore) -> None:
    for name, problem, score in (("a", "p1", 0.0), ("b", "p2", 1.0)):
        written = proof(id=name, problem_id=problem, solution=WRONG, given=Given())
        put_record(store, keys.proof(RUN, name), written)
        add_critiques(store, name, (score, []))
    expected = figure(("p1", 1), ("p1", 0))
    assert evaluate_run(store, RUN, NANO_CHECKER).verifier_accuracy == expected


@pytest.mark.parametrize("verdict", [MALFORMED, TRUNCATED])
def test_an_unreadable_proof_fails_and_is_in_no_other_figure(
    store: LocalStore, verdict: Verdict
) -> None:
    add_proof(store, "a", RIGHT, verdict, score=None, outcome="unreadable", kind="unreadable")
    found = measured(store)
    assert found.pop("pass_at_1") == (0.0, 1)
    assert set(found.values()) == {(None, 0)}


def test_a_proof_without_a_label_counts_in_no_label_figure(store: LocalStore) -> None:
    add_proof(store, "a", RIGHT, valid(1.0))
    found = measured(store)
    assert (found["label_agreement"], found["label_undecided"]) == ((None, 0), (None, 0))
    assert found["pass_at_1"] == (1.0, 1)


def test_an_unreadable_critique_is_a_wrong_one(store: LocalStore) -> None:
    add_proof(store, "a", WRONG, valid(0.0))
    add_critiques(store, "a", (None, []), (0.0, [Defect("a", "miscalculated")]))
    found = measured(store)
    assert (found["verifier_accuracy"], found["verifier_faithfulness"]) == ((0.5, 2), (1.0, 1))


def test_a_garbled_solution_is_a_wrong_proof(store: LocalStore) -> None:
    add_proof(store, "a", "Clearly true.", valid(0.0), score=0.0, outcome="rejected")
    found = measured(store)
    assert (found["pass_at_1"], found["self_eval_error"], found["label_agreement"]) == (
        (0.0, 1),
        (0.0, 1),
        (1.0, 1),
    )


def test_another_run_s_proofs_are_not_counted(store: LocalStore) -> None:
    add_proof(store, "a", RIGHT, valid(1.0))
    put_record(
        store, keys.proof("other", "b"), proof(valid(1.0), id="b", run_id="other", solution=WRONG)
    )
    assert measured(store)["pass_at_1"] == (1.0, 1)
