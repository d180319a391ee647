"""Files of given proofs and analyses: what their rows may hold, and how a bad row is named."""

# ruff: noqa: E501  (one line a case)

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from proofloop.config.given_files import given_cases
from proofloop.errors import ConfigError
from proofloop.method.domains.base import is_in_split
from proofloop.schema.given import GivenCase
from proofloop.schema.records import Given
from tests.builders import runspec


def cases(folder: Path, text: str, name: str = "rows.jsonl", **problems: Any) -> list[GivenCase]:
    (folder / name).write_text(text)
    source = problems.pop("source", "given_proofs")
    return given_cases(runspec(problems={source: name, **problems}, base=folder))


def row(**fields: Any) -> str:
    return json.dumps({"question": "Q", "solution": "S", **fields})


def test_a_table_s_empty_cell_is_no_grade(tmp_path: Path) -> None:
    text = "id,problem,proof,score,by\n7,Q,S,0.5,Ada\n8,R,T,,Bo\n"
    assert cases(tmp_path, text, "rows.csv") == [
        GivenCase(
            question="Q",
            solution="S",
            given=Given(score=0.5, by="Ada", origin="rows.csv row 1, id 7"),
        ),
        GivenCase(question="R", solution="T", given=Given(by="Bo", origin="rows.csv row 2, id 8")),
    ]


@pytest.mark.parametrize("by", ["", None])
def test_an_empty_grader_is_the_default(tmp_path: Path, by: str | None) -> None:
    (found,) = cases(tmp_path, row(score=1, by=by))
    assert found.given.by == "expert"


def test_a_row_of_an_analysis_becomes_a_case(tmp_path: Path) -> None:
    found = cases(tmp_path, row(Analysis="A", QUALITY=0), source="given_analyses")
    given = Given(is_analysis=True, quality=0.0, by="expert", origin="rows.jsonl row 1")
    assert found == [GivenCase(question="Q", solution="S", analysis="A", given=given)]


def test_count_and_split_choose_rows(tmp_path: Path) -> None:
    questions = [f"Question {number}" for number in range(60)]
    text = "\n".join(row(question=question) for question in questions)
    assert [case.question for case in cases(tmp_path, text, count=3)] == questions[:3]
    test = [question for question in questions if is_in_split(question, "test")]
    assert [case.question for case in cases(tmp_path, text, split="test")] == test


@pytest.mark.parametrize(
    ("text", "problems", "said"),
    [
        (row() + "\n" + row(score=0.7), {}, r"^row 2 of .*: score = 0.7: Input should be 0.0, 0.5 or 1.0\nhint: each row has"
            r" `question`, `solution`, and may have `score` \(0, 0.5 or 1\), `by`, `id`$"),
        (row(by="\ud835"), {}, r"^row 1 of .* has half of a surrogate pair"),
        (row(id="\ud835"), {}, r"^row 1 of .* has half of a surrogate pair"),
        ('{"question": "Q"}', {}, r"^row 1 of .*: solution.*: Field required"),
        (row(), {"source": "given_analyses"}, r"^row 1 of .*: analysis: Field required"),
        ("[]", {}, r"rows.jsonl has no rows\nhint: give rows with `question`"),
        (row(), {"count": 2}, r"^\[problems\] count = 2: .*rows.jsonl has only 1 proofs\nhint: set count to 1 or less"),
        (row(question="Question 0"), {"split": "test"}, r"rows.jsonl has no proofs in the test split\nhint: leave out"),
    ],
)  # fmt: skip
def test_a_bad_file_is_named_with_the_way_out(
    tmp_path: Path, text: str, problems: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        cases(tmp_path, text, **problems)
