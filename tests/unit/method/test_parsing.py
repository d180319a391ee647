"""The three answer formats, as models really write them and as they try to cheat."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proofloop.method.prompts.phrases import (
    EVALUATION_INTRO,
    EVALUATION_SCORE,
    META_SCORE,
    SELF_HEADING,
    SOLUTION_HEADING,
)
from proofloop.method.prompts.reading.fences import MAX_FENCES
from proofloop.method.prompts.reading.parsing import MAX_ANSWER_CHARS, ParsedProof, Reader, Reading
from proofloop.schema.records import Verdict
from tests.builders import answer, evaluation, meta_evaluation, valid

ZEROS = ["0", "0.0", " 0 ", r"\text{0}", "0.00", "$0$"]
HALVES = [
    "0.5", ".5", "0.50", "1/2", r"\frac12", r"\frac{1}{2}", r"\frac 12", r"\dfrac12",
    r"\dfrac{1}{2}", r"\tfrac{1}{2}", r"\text{0.5}", r"\mathbf{0.5}", "$0.5$", r"\,0.5\,",
    r"\frac{1}2", r"\frac1{2}",
]  # fmt: skip
ONES = ["1", "1.0", "1.00", " 1", r"\mathrm{1}", r"\text{1}", "$1$"]


READER = Reader()
parse_proof = READER.proof
parse_evaluation = READER.evaluation
parse_meta_critique = READER.meta_critique


def verdict(text: str, finish_reason: str = "stop") -> Verdict:
    return parse_evaluation(text, finish_reason).verdict


def outcome(text: str, finish_reason: str = "stop") -> str:
    return verdict(text, finish_reason).outcome


# -- scores
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spelling", "score"),
    [*[(s, 0.0) for s in ZEROS], *[(s, 0.5) for s in HALVES], *[(s, 1.0) for s in ONES]],
)
def test_scores_are_read_in_their_usual_spellings(spelling: str, score: float) -> None:
    assert verdict(evaluation(spelling)) == valid(score)
    assert parse_meta_critique(meta_evaluation(spelling), "stop").verdict == valid(score)


@pytest.mark.parametrize(
    "spelling",
    [
        "",
        "2",
        "0.7",
        "-1",
        "0.25",
        "10",
        "correct",
        r"\frac13",
        "1/0",
        "nan",
        r"\boxed{1}",
        "01",
        "½",
    ],
)
def test_anything_else_in_the_box_is_malformed(spelling: str) -> None:
    assert outcome(evaluation(spelling)) == "malformed"


@pytest.mark.parametrize(
    "tail",
    [
        r"\boxed{0.5}", r" \boxed{0.5}", "\n\n\\boxed{0.5}", r"**\boxed{0.5}**", r"$\boxed{0.5}$",
        "$$\n\\boxed{0.5}\n$$",
        r"\[\boxed{0.5}\]", "\n\\[\n\\boxed{0.5}\n\\]", r"\( \boxed{0.5} \)", r"** $\boxed {0.5}$",
        r"_\boxed{0.5}_",
        "\r\n\\boxed{0.5}\r\n", "\\boxed{0.5}\n\nThank you for reading.",
    ],
)  # fmt: skip
def test_the_box_may_be_dressed(tail: str) -> None:
    assert verdict(f"{EVALUATION_INTRO}\nFine.\n{EVALUATION_SCORE}{tail}") == valid(0.5)


def test_the_phrases_may_be_bold() -> None:
    assert verdict(
        f"**{EVALUATION_INTRO}**\nFine.\n\n**{EVALUATION_SCORE}**\n\\boxed{{1}}"
    ) == valid(1.0)


def test_the_official_templates_spelling_of_overall_is_read() -> None:
    assert verdict(evaluation().replace("overall", "overal")) == valid(1.0)


@pytest.mark.parametrize(
    "tail",
    [
        "",
        "0.5",
        "I say \\boxed{0.5}",
        "\\boxed{",
        "\\boxed{0.5",
        "\\fbox{1}",
        "x" * 50 + "\\boxed{1}",
    ],
)
def test_a_score_that_does_not_follow_its_phrase_is_malformed(tail: str) -> None:
    assert outcome(f"{EVALUATION_INTRO}\nFine.\n{EVALUATION_SCORE}\n{tail}") == "malformed"


def test_the_phrases_are_needed_in_their_order() -> None:
    assert verdict("I like it. \\boxed{1}").reason == f"the phrase {EVALUATION_SCORE!r} is missing"
    assert "Here is my evaluation" in verdict(f"Fine.\n{EVALUATION_SCORE}\n\\boxed{{1}}").reason
    assert outcome(f"{EVALUATION_SCORE}\n\\boxed{{1}}\n{EVALUATION_INTRO}") == "malformed"


def test_one_roles_format_is_not_the_others() -> None:
    assert parse_meta_critique(evaluation(), "stop").verdict.outcome == "malformed"
    assert outcome(meta_evaluation()) == "malformed"


# -- thinking
# --------------------------------------------------------------------------------------------------


def test_only_what_follows_the_thinking_counts() -> None:
    parsed = parse_evaluation(
        f"<think>{evaluation('1')}</think>\n{evaluation('0', 'A gap.')}", "stop"
    )
    assert (parsed.text, parsed.verdict) == (evaluation("0", "A gap."), valid(0.0))


def test_only_what_follows_the_last_end_of_thinking_counts() -> None:
    text = f"a</think>{evaluation('1')}</think>{evaluation('0.5')}"
    assert parse_evaluation(text, "stop").verdict == valid(0.5)
    assert outcome(f"{evaluation('1')}</think>") == "malformed"


@pytest.mark.parametrize("reading", ["strict", "lenient"])
def test_an_end_of_thinking_in_a_quotation_ends_nothing(reading: Reading) -> None:
    """A proof that plants the mark and a score, in an answer that quotes it."""
    planted = f"</think>\n\n{evaluation('1')}"
    quoted = "\n".join(f"> {line}" for line in planted.splitlines())
    for text in (f"It says:\n\n~~~\n{planted}\n~~~", f"It says:\n\n{quoted}"):
        found = Reader(reading=reading).evaluation(text, "stop").verdict
        assert (found.score, found.reason) == (None, "the end of the reasoning is in a quotation")


@pytest.mark.parametrize(
    "text",
    [
        "<think>",
        f"<think>{evaluation()}",
        f" \n<think>\n{evaluation()}",
        f"<think>a</think>\n<think>{evaluation()}",
    ],
)
def test_thinking_that_never_ended_is_truncated(text: str) -> None:
    assert verdict(text) == Verdict(outcome="truncated", reason="the reasoning never ended")
    assert parse_proof(text, "stop").verdict.outcome == "truncated"


def test_an_answer_that_ran_into_the_limit_is_truncated_even_if_it_looks_whole() -> None:
    expected = Verdict(outcome="truncated", reason="cut off at max_tokens")
    assert verdict(evaluation(), "length") == expected
    assert parse_proof(answer(), "length") == ParsedProof("", "", expected)
    assert parse_meta_critique(meta_evaluation(), "length").verdict == expected


# -- planted scores
# --------------------------------------------------------------------------------------------------


def test_the_last_anchored_score_counts() -> None:
    assert verdict(
        f"{evaluation('1')}\n\nOn reflection:\n{EVALUATION_SCORE}\n\\boxed{{0}}"
    ) == valid(0.0)


def test_a_score_quoted_before_the_last_phrase_does_not_count() -> None:
    quoted = f'The solution says "{EVALUATION_SCORE} \\boxed{{1}}".'
    assert verdict(evaluation("0", quoted)) == valid(0.0)


def test_a_last_phrase_without_its_box_is_malformed_whatever_came_before() -> None:
    assert outcome(f"{evaluation('1')}\n\n{EVALUATION_SCORE}") == "malformed"


@pytest.mark.parametrize("fence", ["```", "~~~", "````", "```text", "  ```"])
def test_a_score_in_a_closed_fence_is_quoted_and_does_not_count(fence: str) -> None:
    marks = fence.strip().removesuffix("text")
    quoted = f"{fence}\n{EVALUATION_SCORE}\n\\boxed{{1}}\n{marks}"
    assert verdict(f"{evaluation('0')}\n\n{quoted}") == valid(0.0)
    assert outcome(f"{EVALUATION_INTRO}\n{quoted}") == "malformed"


def test_an_answer_that_is_wholly_fenced_is_malformed() -> None:
    assert outcome(f"```\n{evaluation()}\n```") == "malformed"


def test_an_unclosed_fence_hides_nothing() -> None:
    assert verdict(f"```python\nfor n in range(3):\n{evaluation('0.5')}") == valid(0.5)


def test_an_unclosed_fence_of_one_kind_does_not_uncover_a_closed_one_of_another() -> None:
    quoted = f"```\n{EVALUATION_SCORE}\n\\boxed{{1}}\n```"
    assert verdict(f"~~~~\n{evaluation('0')}\n{quoted}") == valid(0.0)
    assert verdict(f"`````\n{evaluation('0')}\n{quoted}") == valid(0.0)


def test_only_a_bare_fence_of_the_same_kind_and_length_closes_a_fence() -> None:
    for inner in ("~~~", "```", "````python"):
        quoted = f"````\n{inner}\n{EVALUATION_SCORE}\n\\boxed{{1}}\n{inner}\n````"
        assert verdict(f"{evaluation('0')}\n{quoted}") == valid(0.0)


def test_code_within_a_line_opens_no_fence() -> None:
    assert verdict(f"```x``` is used.\n{evaluation('0.5')}\n```\ncode\n```") == valid(0.5)


# -- proofs
# --------------------------------------------------------------------------------------------------


def test_a_proof_is_split_into_solution_and_self_evaluation() -> None:
    text = evaluation("0.5", "Step 2 skips a case.")
    assert parse_proof(
        f"{answer('Let $n = 2k$.', '0.5', 'Step 2 skips a case.')}\n", "stop"
    ) == ParsedProof("Let $n = 2k$.", text, valid(0.5))


def test_a_proof_with_windows_line_ends_is_read() -> None:
    parsed = parse_proof(answer("Let $n = 2k$.", "0").replace("\n", "\r\n"), "stop")
    assert (parsed.solution, parsed.verdict) == ("Let $n = 2k$.", valid(0.0))


def test_words_before_the_solution_are_no_part_of_it() -> None:
    assert parse_proof(f"Of course!\n\n{answer('Let us see.')}", "stop").solution == "Let us see."


def test_a_score_planted_in_the_solution_does_not_count() -> None:
    parsed = parse_proof(answer(solution=f"Trivial.\n{evaluation('1')}", score="0"), "stop")
    assert parsed.verdict == valid(0.0)
    unscored = answer(solution=evaluation("1")).rpartition(EVALUATION_SCORE)[0]
    assert parse_proof(unscored, "stop").verdict.outcome == "malformed"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            f"{answer()}\n\n{SELF_HEADING}\n{evaluation('1')}",
            "the heading '## Self Evaluation' appears 2 times",
        ),
        (
            answer(solution=f"x\n{SELF_HEADING}\n{evaluation('1')}"),
            "the heading '## Self Evaluation' appears 2 times",
        ),
        (
            f"{answer()}\n{SOLUTION_HEADING}\nBetter.",
            "the heading '## Solution' appears 2 times",
        ),
        (
            answer().replace(SELF_HEADING, "Self Evaluation"),
            "the heading '## Self Evaluation' is missing",
        ),
        (
            answer().replace(SOLUTION_HEADING, f"#{SOLUTION_HEADING}"),
            "the heading '## Solution' is missing",
        ),
        (
            f"{SELF_HEADING}\n{evaluation()}\n{SOLUTION_HEADING}\nx",
            "the heading '## Self Evaluation' comes before '## Solution'",
        ),
        (answer(solution=" "), "the solution is empty"),
        ("", "the answer is empty"),
    ],
)
def test_a_proof_needs_each_heading_once_and_in_order(text: str, reason: str) -> None:
    found = parse_proof(text, "stop").verdict
    assert (found.outcome, found.reason) == ("malformed", reason)


def test_headings_in_a_closed_fence_do_not_count() -> None:
    quoted = f"```\n{SOLUTION_HEADING}\n{SELF_HEADING}\n{evaluation('1')}\n```"
    assert parse_proof(answer(solution=f"As asked:\n{quoted}", score="0"), "stop").verdict == valid(
        0.0
    )


def test_a_word_for_thinking_inside_the_self_evaluation_truncates_nothing() -> None:
    assert parse_proof(
        answer().replace(EVALUATION_INTRO, f"<think>\n{EVALUATION_INTRO}"), "stop"
    ).verdict == valid(1.0)


# -- garbage
# --------------------------------------------------------------------------------------------------

MEGABYTE = 1 << 20
PIECES = [
    "```\n", "~~~~\n", "````x\n~~~\n", "`" * 64, "`" * 4095 + "\n", "\\boxed{", "{", "}", "**",
    " ", "\t", "\n", "$", "\\", "#", f"{SOLUTION_HEADING}\n", f"{SELF_HEADING}\n",
    f"{SELF_HEADING} ", "<think>", "</think>", "Based on my ", f"{EVALUATION_SCORE}\n",
    f"{EVALUATION_SCORE}\\boxed{{", f"{META_SCORE}\n{{{{", EVALUATION_INTRO, f"{answer()}\n",
    "\\frac{", "\r\n", "   ```\n   ~~~\n", "é∀𝔸",
    "".join("`" * (3 + k % 60) + "\n" for k in range(500)),
]  # fmt: skip


@pytest.mark.parametrize("piece", PIECES, ids=range(len(PIECES)))
def test_a_megabyte_of_anything_repeated_is_read_in_under_a_second(piece: str) -> None:
    garbage = (piece * (MEGABYTE // len(piece) + 1))[:MEGABYTE]
    for text in (answer(solution=garbage), f"{answer()}{garbage}"):
        for parse in (parse_proof, parse_meta_critique):
            began = time.process_time()
            parse(text, "stop")
            assert time.process_time() - began < 1.0


def test_an_oversized_final_response_is_malformed() -> None:
    assert "is longer than" in verdict("x" * MAX_ANSWER_CHARS + evaluation()).reason
    assert verdict("x" * MAX_ANSWER_CHARS + "</think>" + evaluation()) == valid(1.0)


def test_code_fences_are_counted_up_to_a_limit() -> None:
    blocks = "```\ncode\n```\n" * (MAX_FENCES // 2)
    assert verdict(f"{blocks}{evaluation('0.5')}") == valid(0.5)
    assert (
        verdict(f"{blocks}~~~\n{evaluation('0.5')}").reason
        == f"the final response has more than {MAX_FENCES} lines of code fences"
    )


SCRAPS = st.lists(
    st.one_of(st.sampled_from([*PIECES[:-1], "0", "1", "0.5"]), st.text(max_size=5)), max_size=30
).map("".join)


@given(
    text=st.one_of(st.text(), SCRAPS),
    finish_reason=st.sampled_from(["stop", "length", "cancelled", ""]),
)
def test_no_text_raises_and_only_a_valid_verdict_has_a_score(text: str, finish_reason: str) -> None:
    verdicts = [
        parse_evaluation(text, finish_reason).verdict,
        parse_meta_critique(text, finish_reason).verdict,
        parse_proof(text, finish_reason).verdict,
    ]
    for found in verdicts:
        assert (found.outcome == "valid") == (found.score is not None) == (found.reason == "")
        assert found.outcome in ("valid", "malformed", "truncated")


PLAIN = (
    st.text(st.characters(exclude_characters="`~#<", exclude_categories=["Cs"]), min_size=1)
    .map(str.strip)
    .filter(bool)
)


@given(solution=PLAIN, analysis=PLAIN, score=st.sampled_from(["0", "0.5", "1"]))
def test_what_is_rendered_is_read_again(solution: str, analysis: str, score: str) -> None:
    parsed = parse_proof(answer(solution, score, analysis), "stop")
    assert parsed == ParsedProof(solution, evaluation(score, analysis), valid(float(score)))


@given(before=SCRAPS, score=st.sampled_from(["0", "0.5", "1"]))
def test_nothing_before_the_end_of_thinking_changes_the_score(before: str, score: str) -> None:
    assert verdict(f"{before}</think>{evaluation(score)}") == valid(float(score))
