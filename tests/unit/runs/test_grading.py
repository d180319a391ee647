"""People's grades: the one that counts, the label that it makes, agreement, rows to export."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from sklearn.metrics import accuracy_score, cohen_kappa_score, confusion_matrix
from typer.testing import CliRunner

from proofloop.cli.app import app
from proofloop.config.given_files import EXPERT, GradedAnalysis, read_graded
from proofloop.runs.create import create_run
from proofloop.runs.grading.agreement import SCORES, Agreement, agreements
from proofloop.runs.grading.history import counting, is_contested, standing
from proofloop.runs.labels import analysis_rows, find_label, scored_proofs
from proofloop.schema.records import Grade, Mark, Score
from proofloop.store import LocalStore
from tests.builders import PROOF, RUN, grade, label, put_case, put_grade, runspec

Given = tuple[str, Score | None]
"""Who gave which score; None withdraws."""


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A run with an undecided proof."""
    store = LocalStore(tmp_path / "store")
    create_run(store, runspec(), resume=False)
    put_case(store)
    return store


def grades(*given: Given) -> list[Grade]:
    return [grade(score, by=by, number=number) for number, (by, score) in enumerate(given)]


def score_that_counts(*given: Given) -> Score | None:
    found = counting(grades(*given))
    return found and found.score


@pytest.mark.parametrize(
    ("given", "counts"),
    [
        ((), None),
        ((("A", 0.5),), 0.5),
        ((("A", 0.5), ("A", 1.0)), 1.0),
        ((("A", 0.5), ("A", None)), None),
        ((("A", 0.5), ("A", None), ("A", 0.0)), 0.0),
        ((("A", 0.5), ("B", 0.5)), 0.5),
        ((("A", 0.5), ("B", 1.0)), None),
        ((("A", 0.5), ("B", 1.0), ("B", 0.5)), 0.5),
        ((("A", 0.5), ("B", 1.0), ("B", None)), 0.5),
    ],
)
def test_the_last_grade_of_each_person_counts_if_people_agree(
    given: tuple[Given, ...], counts: Score | None
) -> None:
    assert score_that_counts(*given) == counts


def test_a_case_is_contested_until_a_person_settles_it() -> None:
    history = grades(("A", 0.5), ("B", 1.0))
    assert is_contested(history)
    settled = [*history, grade(0.0, by="C", number=2, settles=True)]
    assert not is_contested(settled)
    later = [*settled, grade(1.0, by="D", number=3)]
    assert counting(later) == settled[-1]
    assert is_contested([*settled, grade(None, by="C", number=3)])


def test_people_stand_in_the_order_of_their_last_grades() -> None:
    assert list(standing(grades(("A", 0.5), ("B", 0.5), ("A", 0.5)))) == ["B", "A"]


def test_a_label_follows_the_grades_and_tells_up_to_which(store: LocalStore) -> None:
    def now() -> tuple[Score | None, str, int | None]:
        found = find_label(store, RUN, PROOF)
        assert found is not None
        return found.score, found.by, found.grade

    assert now() == (None, "labeler", None)
    put_grade(store, 0.5, by="A")
    assert now() == (0.5, "A", 0)
    put_grade(store, 1.0, by="B", number=1)
    assert now() == (None, "labeler", 1)
    put_grade(store, 0.5, by="B", number=2)
    assert now() == (0.5, "B", 2)
    put_grade(store, 0.0, by="C", number=3, critique=0)  # of an analysis
    assert now() == (0.5, "B", 2)


def test_agreement_is_that_of_scikit_learn() -> None:
    rng = random.Random(0)
    for cases in (5, 20, 100):
        first, second = ([rng.choice(SCORES) for _ in range(cases)] for _ in range(2))
        found = _agreement(first, second)
        pair = [int(2 * score) for score in first], [int(2 * score) for score in second]
        assert found.confusion == confusion_matrix(*pair, labels=[2, 1, 0]).tolist()
        assert found.equal == round(accuracy_score(*pair) * found.cases)
        assert found.kappa == pytest.approx(cohen_kappa_score(*pair))
        weighted = cohen_kappa_score(*pair, weights="quadratic")
        assert found.weighted_kappa == pytest.approx(weighted)


def test_kappa_is_undefined_where_both_always_gave_one_score() -> None:
    assert _agreement([1, 1], [1, 1]).kappa is None
    assert _agreement([1, 1], [1, 0]).kappa == 0.0


def _agreement(first: list[Score], second: list[Score]) -> Agreement:
    history = [
        grade(score, by=by, proof_id=f"p-{number:03d}")
        for number, pair in enumerate(zip(first, second, strict=True))
        for by, score in zip("AB", pair, strict=True)
    ]
    (found,) = agreements(history)
    return found


def test_agreement_counts_grades_that_were_given_blind() -> None:
    history = [
        grade(0.5, by="A"),
        grade(1.0, by="B", number=1),
        grade(0.5, by="B", number=2, is_blind=False),
        grade(0.0, by="C", number=3, settles=True),
    ]
    (found,) = agreements(history)
    assert (found.first, found.second, dict(found.pairs)) == ("A", "B", {(0.5, 1.0): 1})


def test_checked_labels_are_a_rater_too() -> None:
    checks = [
        grade(score, proof_id=f"p-{number}", checks_label=True, label=label(1.0))
        for number, score in enumerate((1.0, 0.5))
    ]
    (found,) = agreements(checks)
    assert (found.second, dict(found.pairs)) == ("labels", {(1.0, 1.0): 1, (0.5, 1.0): 1})


def test_rows_have_the_score_on_which_people_agree(store: LocalStore) -> None:
    put_grade(store, 0.5, by="A")
    (row,) = scored_proofs(store, RUN)
    assert (row["score"], row["by"]) == (0.5, "A")
    put_grade(store, 1.0, by="B", number=1)
    assert list(scored_proofs(store, RUN)) == []


def test_graded_analyses_are_rows_that_train_a_meta_verifier(
    store: LocalStore, tmp_path: Path
) -> None:
    put_grade(store, 1.0, by="A", critique=0)
    put_grade(store, 0.5, by="A", critique=2)  # a critique that reports no issue
    rows = list(analysis_rows(store, RUN, people=True))
    assert [(row["quality"], row["by"]) for row in rows] == [(1.0, "A"), (0.5, "A")]
    file = tmp_path / "d_mv.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    assert [row.quality for row in read_graded(file, GradedAnalysis)] == [1.0, 0.5]
    everything = list(analysis_rows(store, RUN, people=False))
    assert [(row["quality"], row["by"]) for row in everything] == [
        (1.0, "A"),
        (None, EXPERT),
        (0.5, "A"),
    ]


def test_all_grades_are_exported_with_comments_and_marks(store: LocalStore) -> None:
    marks = (Mark(first=3, last=4, comment="why?"),)
    put_grade(store, 0.5, by="A", comment="A gap.", marks=marks)
    put_grade(store, 0.0, by="A", number=1, is_blind=False)
    put_grade(store, 1.0, by="B", critique=0)
    shown = CliRunner().invoke(app, ["grades", "export", RUN, "--store", str(store.root)])
    rows = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [(row["critique"], row["score"], row["counts"], row["blind"]) for row in rows] == [
        (0, 1.0, True, True),
        (None, 0.5, False, True),
        (None, 0.0, True, False),
    ]
    assert rows[1]["comment"] == "A gap."
    assert rows[1]["marks"] == [{"first": 3, "last": 4, "comment": "why?"}]
    assert rows[1]["at"] == "2025-10-09T08:53:20+00:00"


def test_agreement_is_shown_on_the_command_line(store: LocalStore) -> None:
    put_grade(store, 0.5, by="A")
    put_grade(store, 1.0, by="B", number=1)
    arguments = ["grades", "agreement", RUN, "--json", "--store", str(store.root)]
    (row,) = json.loads(CliRunner().invoke(app, arguments).stdout)
    assert (row["first"], row["second"], row["cases"], row["equal"], row["0.5/1"]) == (
        *("A", "B"),
        *(1, 0, 1),
    )
    assert json.loads(CliRunner().invoke(app, [*arguments, "--analyses"]).stdout) == []
