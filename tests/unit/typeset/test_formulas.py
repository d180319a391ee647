"""Which parts of a text are formulas."""

from __future__ import annotations

import time

import pytest

from proofloop.typeset.formulas import MAX_FORMULA, find_formulas


def found(text: str) -> list[tuple[str, bool]]:
    return [(text[each.begin : each.end], each.is_display) for each in find_formulas(text)]


@pytest.mark.parametrize(
    ("formula", "is_display"),
    [
        ("$x_1 = 2$", False),
        ("$ x_1 = 2 $", False),
        ("$ n $", False),
        (r"\(x_1 = 2\)", False),
        (r"$\text{if $x > 0$ or $x < -1$}$", False),
        (r"\boxed{0.5}", False),
        (r"\boxed{\frac{1}{2}}", False),
        ("$$\nx_1 = 2\n$$", True),
        (r"\[ x_1 = 2 \]", True),
        (r"\[ x \text{ if $x > 0$} \]", True),
        ("\\[ x\n\n- y \\]", True),
        (r"\begin{align*} x_1 &= 2 \end{align*}", True),
        (r"\begin{pmatrix} 1 & 2 \end{pmatrix}", True),
    ],
)
def test_formulas_are_found_between_every_kind_of_marks(formula: str, is_display: bool) -> None:
    assert found(f"So {formula} holds.") == [(formula, is_display)]


@pytest.mark.parametrize(
    "text",
    [
        "It costs $5 and $6.",
        "It costs 5 $ and 6 $ more.",
        "Open $x + y and no end",
        r"Open \( x, \[ y, \begin{align} z",
        r"\(x + y" + "\n\n" + r"z\)",
        "$$x\n\ny$$",
        r"\$5 and \$6",
        r"\\[1em] a new line of a table \\]",
        "a $\n\n$ b",
        "$$$$",
        r"\begin{verbatim} x \end{verbatim}",
        "`$x$` and ``\\(y\\)``",
        "```latex\n$x$\n```",
        r"\boxed{x",
        "$" + "x" * (MAX_FORMULA + 1) + "$",
    ],
)
def test_other_texts_have_no_formula(text: str) -> None:
    assert found(text) == []


def test_a_dollar_in_code_closes_no_formula() -> None:
    assert found("`$` then $x$ and `$y`") == [("$x$", False)]


@pytest.mark.parametrize(
    "unit",
    ["$", "$ ", "$$ a ", "\\( ", "\\[", "\\begin{align} ", "\\text{$", "\\boxed{", "`", "` $"],
)
def test_marks_that_nothing_closes_take_linear_time(unit: str) -> None:
    began = time.process_time()
    list(find_formulas(unit * (100_000 // len(unit))))
    assert time.process_time() - began < 5
