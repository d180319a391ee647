"""Where a critique points: what it quotes is found, and nothing else is."""

from __future__ import annotations

import time

import pytest

from proofloop.ui.quotations import Place, Searched, blocks_of

PROOF = (
    "Let $n = 2k$ be even.\n\n"
    "**Step 2.** By the inequality above, $a_{n+1} \\le \\left( a_n + b_n \\right)^2$.\n\n"
    "\\[\n x = 1,\n\n y = 2\n\\]\n\n"
    "Hence the sum *converges* to a limit."
)


def places(critique: str) -> list[int]:
    return [place.block for place in Searched(blocks_of(PROOF)).places(critique)]


def test_a_blank_line_inside_a_formula_or_code_ends_no_paragraph() -> None:
    assert len(blocks_of(PROOF)) == 4
    assert blocks_of("```\na\n\nb\n```\n\nc") == ["```\na\n\nb\n```", "c"]
    assert blocks_of(" \n\n ") == []


def test_a_named_step_on_a_new_line_begins_a_paragraph() -> None:
    assert blocks_of("Let it be.\n**Step 1.** So\nit is.\nStep 2. Hence.") == [
        "Let it be.",
        "**Step 1.** So\nit is.",
        "Step 2. Hence.",
    ]


@pytest.mark.parametrize(
    ("critique", "found"),
    [
        ('The proof says "the sum converges to a limit", which is false.', [3]),
        ("It claims “Hence the   sum converges” without a reason.", [3]),
        ("> By the inequality above,\n\nWhich one?", [1]),
        ("Why is $$a_{n+1} \\leq 1$$ and $a_{n+1}\\le(a_n+b_n)^2$?", [1]),
        ("step 2 is wrong, and so is Step 3.", [1]),
        ('See `Let $n = 2k$ be even`, and "the inequality ... converges to a limit".', [0, 3]),
        ('The proof claims that "every group is abelian".', []),
        ('It says "even".', []),
        ("In general $n = 2k$ is fine.", []),
    ],
)
def test_what_a_critique_quotes_is_found(critique: str, found: list[int]) -> None:
    assert places(critique) == found


def test_a_place_has_the_words_that_point_there() -> None:
    searched = Searched(blocks_of(PROOF))
    assert searched.places('Not "the sum\nconverges to a limit".') == []
    assert searched.places("Not “the sum\nconverges to a limit”.") == [
        Place(3, "the sum converges to a limit")
    ]


def test_a_long_text_is_searched_in_linear_time() -> None:
    searched = Searched(blocks_of("Let $x$ be. " * 20_000))
    assert searched.places('"' + "$ ` “ > \\( " * 30_000) == []


def test_the_end_of_a_line_of_a_formula_opens_no_formula() -> None:
    spaced = "$$\\begin{aligned} a &= b \\\\[2pt] &= c \\end{aligned}$$"
    assert blocks_of(f"{spaced}\n\nHence.\n\nSo.") == [spaced, "Hence.", "So."]


@pytest.mark.parametrize(
    ("proof", "mark"),
    [
        ("```\n" + "a\n\n" * 300_000, "“"),
        ("Let it be.", "\\["),
        ("\nstep 1" * 30_000, "step 9 "),
    ],
)
def test_a_long_garbled_text_is_read_in_seconds(proof: str, mark: str) -> None:
    began_s = time.process_time()
    Searched(blocks_of(proof)).places(mark * (200_000 // len(mark)))
    assert time.process_time() - began_s < 2
