"""The two readings, on a table of answers that a careful person has read."""

# ruff: noqa: E501  (one line a case)

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proofloop.method.prompts.phrases import EVALUATION_INTRO, EVALUATION_SCORE, Phrases
from proofloop.method.prompts.reading.parsing import Reader, Reading
from proofloop.schema.records import Verdict
from tests.builders import answer, evaluation, meta_evaluation, valid
from tests.unit.method.reading_cases import CASES, Case


def read(
    role: str,
    text: str,
    reading: Reading,
    finish_reason: str = "stop",
    phrases: Phrases | None = None,
) -> Verdict:
    reader = Reader(phrases or Phrases(), reading)
    parse = {
        "generator": reader.proof,
        "verifier": reader.evaluation,
        "meta_verifier": reader.meta_critique,
    }[role]
    return parse(text, finish_reason).verdict


def test_the_table_has_every_kind_of_answer() -> None:
    assert len(CASES) >= 100
    assert len({(case.role, case.text) for case in CASES}) == len(CASES)
    assert all(reading in (None, case.person) for case in CASES for reading in (case.lenient,))


@pytest.mark.parametrize(
    "case", CASES, ids=[f"{case.role}-{number}" for number, case in enumerate(CASES)]
)
def test_an_answer_is_read_as_a_careful_person_reads_it(case: Case) -> None:
    strict, lenient = (read(case.role, case.text, reading) for reading in ("strict", "lenient"))
    assert (strict.score, lenient.score) == (case.strict, case.lenient), (strict, lenient)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the answer is empty"),
        (evaluation("0.7"), "the score '0.7' is not 0, 0.5 or 1"),
        (f"{EVALUATION_INTRO}\nFine.", "no score found"),
        (
            f"{EVALUATION_INTRO}\nFine.\n{EVALUATION_SCORE}",
            f"no score follows {EVALUATION_SCORE!r}",
        ),
        (
            f"{evaluation('0')}\n\nNo. {EVALUATION_SCORE} \\boxed{{1}}",
            "two different scores: 0 and 1",
        ),
        ("Score: 1\n\nScore: 0.5", "two different scores: 1 and 0.5"),
        (
            f"{EVALUATION_INTRO} Fine.\n{'The score is good. ' * 500}",
            "the end of the answer has more than 200 grading words",
        ),
        ("> x\n\n" * 2000, "the final response has more than 1000 block quotes"),
    ],
)
def test_a_lenient_reading_says_why_there_is_no_score(text: str, reason: str) -> None:
    found = read("verifier", text, "lenient")
    assert (found.outcome, found.reason) == ("malformed", reason)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Fine.", "the heading '## Solution' is missing"),
        (f"{answer()}\n**Self Evaluation**", None),
        (answer().replace("## Self Evaluation", "### Self Evaluation") + "\n### Self Evaluation", "the heading '## Self Evaluation' appears 2 times"),
    ],
)  # fmt: skip
def test_a_heading_counts_in_its_best_form(text: str, reason: str | None) -> None:
    assert read("generator", text, "lenient").reason == (reason or "")


@pytest.mark.parametrize("reading", ["strict", "lenient"])
def test_an_answer_that_was_cut_off_is_truncated_in_both_readings(reading: Reading) -> None:
    expected = Verdict(outcome="truncated", reason="cut off at max_tokens")
    assert read("verifier", evaluation(), reading, "length") == expected


def test_a_pack_is_read_by_its_own_phrases_in_both_readings() -> None:
    phrases = Phrases(
        evaluation_intro="", evaluation_score="Endurteil:", solution_heading="## Beweis"
    )
    for reading in ("strict", "lenient"):
        assert read(
            "verifier", "Es stimmt.\n\nEndurteil: \\boxed{1}", reading, phrases=phrases
        ) == valid(1.0)
        assert (
            read("verifier", "Es stimmt.\n\nUrteil: \\boxed{1}", reading, phrases=phrases).outcome
            == "malformed"
        )
        assert read(
            "generator", answer().replace("## Solution", "## Beweis"), reading, phrases=phrases
        ) == valid(1.0)
        assert read("generator", answer(), reading, phrases=phrases).outcome == "malformed"


# -- properties
# --------------------------------------------------------------------------------------------------------

DECORATIONS = st.lists(
    st.sampled_from(
        [
            lambda text: text.replace("\r\n", "\n").replace("\n", "\r\n"),
            lambda text: text.replace("\\boxed", "\n\\boxed"),
            lambda text: text.replace(EVALUATION_SCORE, f"**{EVALUATION_SCORE}**"),
            lambda text: text.replace(EVALUATION_INTRO, f"### {EVALUATION_INTRO}"),
            lambda text: text.replace("## Solution", "### Solution:"),
            lambda text: text.replace("## Self Evaluation", "**Self Evaluation**"),
            lambda text: text.replace("final overall", "final\noverall"),
            lambda text: text.replace("the final", "the  *final*"),
            lambda text: text.replace("should be", "is"),
            lambda text: text.replace("\\boxed{", "\\boxed{ ").replace("}", " }"),
            lambda text: (
                text.replace("\\boxed", "$\\boxed") + "$" if "$\\boxed" not in text else text
            ),
            lambda text: f"Of course.\n\n{text}",
            lambda text: f"{text}\n",
            lambda text: f"<think>\\boxed{{0.5}} Score: 1</think>{text}",
            lambda text: text.upper().replace("\\BOXED", "\\boxed").replace("THINK>", "think>"),
        ]
    ),
    max_size=5,
    unique=True,
)


@given(decorations=DECORATIONS, score=st.sampled_from(["0", "0.5", "1"]))
def test_harmless_formatting_never_changes_a_score(
    decorations: list[Callable[[str], str]], score: str
) -> None:
    for role, text in (("generator", answer(score=score)), ("verifier", evaluation(score))):
        for decorate in decorations:
            text = decorate(text)
        assert read(role, text, "lenient") == valid(float(score)), text


PIECES = [
    evaluation("0"), evaluation("1"), meta_evaluation("0.5"), answer(score="0"), EVALUATION_INTRO, EVALUATION_SCORE, "\n", "\n\n", " ", "\\boxed{1}",
    "\\boxed{0}", "\\[\\boxed{0.5}\\]", "Score: 1", "**Score:** 0", "I rate it 0.5.", '"', "“", "”", "```\n", "> ", "- ", "The solution says:", "1", "0.5", ".", ":",
    "## Solution\n", "**Self Evaluation**\n", "### Evaluation\n", "</think>", "Final score:", "It holds.", "or", "is", "\\frac12", "$", "**", "评分：1", "İ", "{", "}",
]  # fmt: skip
SCRAPS = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=4)), max_size=12).map("".join)


@given(text=SCRAPS, role=st.sampled_from(["generator", "verifier", "meta_verifier"]))
def test_the_lenient_reading_never_contradicts_the_strict_one(text: str, role: str) -> None:
    strict, lenient = read(role, text, "strict"), read(role, text, "lenient")
    assert None in (strict.score, lenient.score) or strict.score == lenient.score
    assert (lenient.outcome == "valid") == (lenient.score is not None) == (lenient.reason == "")


# -- time
# --------------------------------------------------------------------------------------------------------------

CHARACTERS = 200_000
REPEATED = [
    "Every step of this argument is checked in turn, and holds.\n", "偶数之和为偶数。\n", "é∀𝔸", "```\n", "```\ncode\n```\n", "> \n", "> x\n\n", "\n", "a\n", "- ",
    "\\boxed{", "\\boxed{1} ", "\\[\\boxed{1}\\]\n", "score ", "score: 1\n", "Score: 1. ", "based on my ", f"{EVALUATION_SCORE}\n", f"{EVALUATION_SCORE}\\boxed{{1}}\n",
    f"{EVALUATION_INTRO}\n", "evaluation\n", "## Solution\n", "solution ", "**", "* ", '"x ', "“", "1 ", "{", "\\frac", "İ", "评分：", "</think>", "</s>", " ", "the ", "`",
]  # fmt: skip


@pytest.mark.parametrize("piece", REPEATED, ids=range(len(REPEATED)))
def test_a_long_answer_is_read_at_once(piece: str) -> None:
    """A tenth of a second a megabyte: 200,000 characters took at most 11 ms on two shared cores,
    mostly 5.
    """
    long = (piece * (CHARACTERS // len(piece) + 1))[:CHARACTERS]
    for role, text in (
        ("generator", answer(long)),
        ("verifier", evaluation("1", long)),
        ("verifier", evaluation() + long),
    ):
        took = min(_seconds(role, text) for _ in range(3))
        assert took < (0.01 if piece == REPEATED[0] else 0.03), (role, took)


def _seconds(role: str, text: str) -> float:
    began = time.process_time()
    read(role, text, "lenient")
    return time.process_time() - began
