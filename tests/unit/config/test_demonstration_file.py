"""The file of demonstrations: chats, answers of roles, and the errors that name a bad row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from proofloop.config.demonstration_file import Demonstration, Turn, read_demonstrations
from proofloop.errors import ConfigError
from proofloop.method.prompts import load_pack
from tests.builders import answer, evaluation, meta_evaluation

PACK = load_pack("math")
QUESTION, PROOF = "Prove that 2n is even.", "2n = n + n."


def read(folder: Path, *rows: Any) -> list[Demonstration]:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(read_demonstrations(file, PACK))


def user(content: str) -> Turn:
    return Turn(role="user", content=content)


def test_the_last_message_of_a_chat_is_the_answer(tmp_path: Path) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
    ]
    (found,) = read(tmp_path, {"messages": turns, "source": "ignored"})
    assert found.prompt == (Turn(role="system", content="Be brief."), user("Hello"))
    assert (found.answer, found.origin) == ("Hi", "row 1 of rows.jsonl")


def test_a_role_s_answer_gets_the_prompt_of_the_pack(tmp_path: Path) -> None:
    proof, critique, meta = answer(PROOF), evaluation("0.5"), meta_evaluation("1")
    about = {"question": QUESTION, "proof": PROOF}
    found = read(
        tmp_path,
        {"role": "generator", "problem": QUESTION, "answer": proof},
        {"role": "generator", **about, "analysis": "A gap.", "answer": proof},
        {"role": "verifier", **about, "answer": critique},
        {"role": "meta_verifier", **about, "analysis": critique, "answer": meta},
    )
    assert [row.prompt for row in found] == [
        (user(PACK.prove(QUESTION).text),),
        (user(PACK.refine(QUESTION, [(PROOF, ["A gap."])]).text),),
        (user(PACK.verify(QUESTION, PROOF).text),),
        (user(PACK.judge(QUESTION, PROOF, critique).text),),
    ]
    assert [row.answer for row in found] == [proof, proof, critique, meta]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("text", r"row 2 of rows\.jsonl"),
        ({"messages": [{"role": "user", "content": "Hello"}]}, r"row 2 of rows\.jsonl: messages"),
        (
            {
                "messages": [
                    {"role": "assistant", "content": "Hi"},
                    {"role": "user", "content": "?"},
                ]
            },
            r"row 2 .*the last message is of the user, not the assistant",
        ),
        ({"messages": [{"role": "tool", "content": "1"}] * 2}, r"row 2 .*messages\[0\].role"),
        ({"role": "judge", "question": QUESTION, "answer": "1"}, r"row 2 .*role = 'judge'"),
        ({"role": "verifier", "question": QUESTION, "answer": "1"}, r"row 2 .*no solution"),
        (
            {"role": "generator", "question": QUESTION, "solution": PROOF, "answer": "1"},
            r"row 2 .*generator with a solution and no analysis",
        ),
        (
            {"role": "verifier", "question": QUESTION, "solution": PROOF, "answer": "It is right."},
            r"row 2 .*cannot be read as one of the verifier",
        ),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: Any, problem: str) -> None:
    good = {"role": "generator", "question": QUESTION, "answer": answer(PROOF)}
    with pytest.raises(ConfigError, match=problem) as caught:
        read(tmp_path, good, row)
    assert caught.value.hint


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no rows"):
        read(tmp_path)
