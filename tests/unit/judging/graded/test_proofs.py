"""Files of graded proofs: which columns and scales are read, and what becomes of a bad row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from proofloop.errors import ConfigError
from proofloop.judging.graded.columns import find_columns, flatten, parse_columns
from proofloop.judging.graded.grades import (
    PASS_FAIL,
    SCORES,
    Scale,
    grade_and_full,
    guess_scale,
    parse_scale,
)
from proofloop.judging.graded.proofs import GradedProofs, read_graded_proofs
from proofloop.schema.given import PeoplesGrade


def read(folder: Path, *rows: dict[str, Any], **options: Any) -> GradedProofs:
    file = folder / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return read_graded_proofs(file, options.pop("columns", {}), **options)


def row(**fields: Any) -> dict[str, Any]:
    return {"problem": "Q", "proof": "S", "grade": 1, **fields}


LAYOUTS = {
    "own": (row(grade=0.5), ("Q", "S", 0.5, 0.5, "", None, None)),
    "outputs of DeepSeekMath-V2": (
        {
            "question": "Q",
            "problem_idx": "A-1",
            "model_prediction": {"proof": "S", "average_automatic_rating": 1.0, "human_rating": 6},
        },
        ("Q", "S", 6 / 7, 0.5, "", None, None),
    ),
    "IMO-GradingBench": (
        {
            "Grading ID": "G1",
            "Problem ID": "PB-1",
            "Problem": "Q",
            "Solution": "R",
            "Grading guidelines": "M",
            "Response": "S",
            "Points": 7,
            "Reward": "Correct",
            "Problem Source": "made up",
        },
        ("Q", "S", 1.0, 1.0, "made up", "R", "M"),
    ),
    "ProofBench": (
        {
            "problem_id": "A-1",
            "problem": "Q",
            "generator": "some model",
            "model_solution": "S",
            "reference_solution": "R",
            "expert_rating": 3,
            "marking_scheme": "M",
            "metadata": {"contest": "made up", "contest_year": "2030"},
        },
        ("Q", "S", 3 / 7, 0.0, "made up", "R", "M"),
    ),
    "Open Proof Corpus": (
        {
            "problem_id": "A-1",
            "problem": "Q",
            "solution": "S",
            "competition": "other",
            "source": "made up",
            "model_id": "m",
            "ground_truth_solution": "R",
            "score": [1, 0],
            "uncertain": [False, True],
        },
        ("Q", "S", 1.0, 1.0, "made up", "R", None),
    ),
    "MathArena": (
        {
            "problem_idx": "1",
            "problem": "Q",
            "model_name": "m",
            "idx_answer": 0,
            "user_message": "Prove: Q",
            "answer": "S",
            "source": "made up",
            "points_judge_1": 6,
            "grading_details_judge_1": [{"title": "Idea", "points": 6, "max_points": 7}],
            "error_judge_1": None,
            "max_points_judge_1": 7,
            "points_judge_2": 7.0,
            "max_points_judge_2": 7.0,
        },
        ("Q", "S", 6 / 7, 0.5, "made up", None, None),
    ),
    "ProcessBench": (
        {
            "id": "x-1",
            "generator": "m",
            "problem": "Q",
            "steps": ["One.", "Two."],
            "final_answer_correct": True,
            "label": -1,
        },
        ("Q", "One.\n\nTwo.", 1.0, 1.0, "m", None, None),
    ),
    "runs export": (
        {
            "run": "r",
            "problem": "p1",
            "proof": "p1-000",
            "question": "Q",
            "solution": "S",
            "score": 0.5,
            "by": "Ada",
        },
        ("Q", "S", 0.5, 0.5, "", None, None),
    ),
    "points of a maximum": (
        row(grade="18", max_points="21"),
        ("Q", "S", 18 / 21, 0.5, "", None, None),
    ),
    "pass or fail": (row(grade="Incorrect"), ("Q", "S", 0.0, 0.0, "", None, None)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_known_layout_is_read_without_options(tmp_path: Path, layout: str) -> None:
    given, expected = LAYOUTS[layout]
    (case,) = read(tmp_path, given).cases
    assert case.graded is not None
    found = (case.question, case.solution, case.graded.share, case.graded.score)
    assert (*found, case.graded.source, case.reference, case.rubric) == expected


def test_a_wrong_step_makes_a_row_of_processbench_wrong(tmp_path: Path) -> None:
    rows = [{"problem": "Q", "steps": ["One."], "label": label} for label in (-1, 0, 3)]
    cases = read(tmp_path, *rows).cases
    assert [case.graded.score for case in cases if case.graded] == [1.0, 0.0, 0.0]


def test_the_folder_of_the_proof_pilot_is_read(tmp_path: Path) -> None:
    files = {
        "grades/grades_additional_data.csv": "problem,team,name,final_score,final_answer,CG\n"
        "2_ALTORO,team_1,Made up,6,,7\n2_ALTORO,model_2,another,7,216,7\n",
        "problems_and_markschemes/problems.csv": 'problem_number,problem_text\n1,P\n2,"Q, and R"\n',
        "evals/2_ALTORO/team_1.txt": "S",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = read_graded_proofs(tmp_path, {})
    (case,) = found.cases
    assert (case.question, case.solution) == ("Q, and R", "S")
    assert case.graded == PeoplesGrade(share=6 / 7, score=0.5, problem="2_ALTORO", source="Made up")
    assert "model_2.txt cannot be read" in found.skipped[0]


def test_another_folder_is_no_data(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="without grades"):
        read_graded_proofs(tmp_path, {})


def test_a_bad_row_is_set_aside_with_its_reason(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [row(), row(proof=" "), row(grade="good"), row(grade=0.7), [1], row(proof="\ud835")]
    file.write_text("\n".join([*map(json.dumps, rows), "{"]))
    found = read_graded_proofs(file, {})
    assert len(found.cases) == 1
    assert [reason.partition(":")[0] for reason in found.skipped[:1]] == ["rows.jsonl row 5"]
    text = "\n".join(found.skipped)
    assert "row 2: no proof" in text
    assert "row 3: grade 'good' is neither a number" in text
    assert "row 4: grade 0.7 is not on the scale" in text
    assert "has half of a surrogate pair" in text
    assert "is not JSON" in text


def test_a_table_s_bad_row_is_set_aside(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("problem,proof,grade\nQ,S,7\nQ,S\nQ,T,0\n")
    found = read_graded_proofs(file, {})
    assert [case.solution for case in found.cases] == ["S", "T"]
    assert "the number of fields differs" in found.skipped[0]


def test_without_a_good_row_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"can be judged: rows\.jsonl row 1: no proof"):
        read(tmp_path, row(proof=""))


def test_proofs_of_a_problem_share_its_name(tmp_path: Path) -> None:
    cases = read(tmp_path, row(), row(proof="T"), row(problem="R", problem_id="own")).cases
    names = [case.graded.problem for case in cases if case.graded]
    assert names[0] == names[1] != names[2] == "own"


def test_a_row_without_the_rubric_of_the_prompts_is_set_aside(tmp_path: Path) -> None:
    found = read(tmp_path, row(rubric="1 point"), row(), needed=["rubric"])
    assert [case.rubric for case in found.cases] == ["1 point"]
    assert found.skipped == (
        "rows.jsonl row 2: the prompt pack shows a rubric, and the row has none",
    )


def test_the_user_names_a_column(tmp_path: Path) -> None:
    found = read(tmp_path, row(mark=0.5), columns={"grade": "mark"})
    assert [case.graded.score for case in found.cases if case.graded] == [0.5]
    with pytest.raises(ConfigError, match="no column 'none' for the grade\nhint: columns: problem"):
        read(tmp_path, row(), columns={"grade": "none"})


def test_a_missing_column_is_named() -> None:
    with pytest.raises(
        ConfigError, match="no column looks like the grade: problem, proof\nhint: name it"
    ):
        find_columns(["problem", "proof"], {})


def test_options_for_columns() -> None:
    assert parse_columns(["grade=My points", "proof=a=b"]) == {"grade": "My points", "proof": "a=b"}
    for wrong in ("grade", "mark=Points", "grade="):
        with pytest.raises(ConfigError, match="names no column\nhint: use problem, proof"):
            parse_columns([wrong])


def test_nested_columns_get_dotted_names() -> None:
    assert flatten({"a": 1, "b": {"c": {"d": 2}}}) == {"a": 1, "b.c.d": 2}


@pytest.mark.parametrize(
    ("scale", "scores"),
    [
        (Scale(7), {0: 0, 5: 0, 6: 0.5, 7: 1}),
        (Scale(10), {7: 0, 8: 0.5, 9: 0.5, 10: 1}),
        (SCORES, {0: 0, 0.5: 0.5, 1: 1}),
        (PASS_FAIL, {0: 0, 1: 1}),
    ],
)
def test_grades_map_to_scores(scale: Scale, scores: dict[float, float]) -> None:
    assert {grade: scale.score(grade) for grade in scores} == scores


@pytest.mark.parametrize(
    ("scale", "grade"), [(Scale(7), 8), (Scale(7), -1), (SCORES, 0.7), (PASS_FAIL, 0.5)]
)
def test_a_grade_that_is_not_on_the_scale_is_refused(scale: Scale, grade: float) -> None:
    with pytest.raises(ConfigError, match=f"grade {grade:g} is not on the scale"):
        scale.share(grade)


def test_the_largest_grade_says_the_scale() -> None:
    assert [guess_scale(grades) for grades in ([0, 1], [0, 3], [8])] == [
        SCORES,
        Scale(7),
        Scale(10),
    ]
    with pytest.raises(ConfigError, match="the largest grade is 21"):
        guess_scale([21])


def test_a_scale_by_name() -> None:
    assert [parse_scale(text) for text in ("score", "pass-fail", "21", "0-7")] == [
        SCORES,
        PASS_FAIL,
        Scale(21),
        Scale(7),
    ]
    for wrong in ("seven", "0", "-7", "inf"):
        with pytest.raises(ConfigError, match="is not a scale"):
            parse_scale(wrong)


def test_a_grade_that_names_its_full_marks(tmp_path: Path) -> None:
    grades = ("7/7", "6 / 7", "85%", "8 / 10", "6.5/10", ["5/5", "1/5"])
    found = read(tmp_path, *(row(grade=grade) for grade in grades))
    assert [case.graded.score for case in found.cases if case.graded] == [1, 0.5, 0.5, 0.5, 0, 1]
    assert found.notes[-1].startswith("rows name their full marks: these count as 1, 80% or more")
    assert found.skipped == ()


def test_a_grade_may_have_a_decimal_comma(tmp_path: Path) -> None:
    found = read(tmp_path, *(row(grade=grade) for grade in ("0", "0,5", "1", "1,0")))
    assert [case.graded.score for case in found.cases if case.graded] == [0, 0.5, 1, 1]
    assert found.skipped == ()


def test_beside_scores_a_grade_keeps_its_own_full_marks(tmp_path: Path) -> None:
    grades = ("0", "1/7", "6/7", "7/7", "1/2", "1/1", "1%", "1")
    found = read(tmp_path, *(row(grade=grade) for grade in grades))
    scores = [case.graded.score for case in found.cases if case.graded]
    assert scores == [0, 0, 0.5, 1, 0.5, 1, 0, 1]
    assert found.skipped == ()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"grade": "8/7"}, "grade 8 is not on the scale: grades go to 7"),
        ({"grade": "120%"}, "grade 120 is not on the scale: grades go to 100"),
        ({"grade": "3/0"}, "full marks '0' are not above 0"),
        ({"grade": 0, "max": 0}, "full marks '0' are not above 0"),
        ({"grade": "a/7"}, "grade 'a' is neither a number"),
        ({"grade": "6/7%"}, "grade '6/7' is neither a number"),
        ({"grade": "6/7", "max": 10}, "grade '6/7' is of 7, but the row's full marks are 10"),
    ],
)
def test_a_grade_off_its_own_full_marks_is_set_aside(
    tmp_path: Path, fields: dict[str, Any], reason: str
) -> None:
    found = read(tmp_path, row(grade="1/2"), row(**fields))
    assert len(found.cases) == 1
    assert reason in found.skipped[0]


def test_grades_in_words_and_lists() -> None:
    given = (True, "Correct", " 6 ", [1, 0])
    assert [grade_and_full(value) for value in given] == [(each, None) for each in (1, 1, 6, 1)]
    for wrong in (None, "", "almost good", [], "nan", float("nan"), "inf"):
        with pytest.raises(ConfigError, match="neither a number"):
            grade_and_full(wrong)
