"""The best proofs as LaTeX: what TeX may read of a model's text."""

from __future__ import annotations

import pytest

from proofloop.cli.runs.exported import ExportedProof
from proofloop.cli.runs.latex import as_latex, inert, is_mathematical
from tests.builders import RUN


def row(solution: str) -> ExportedProof:
    return ExportedProof(
        run=RUN,
        problem="p1",
        proof="p1-000",
        question="Prove that $2n$ is even.",
        solution=solution,
        score=1.0,
        by="labeler",
        comment=None,
        outcome="accepted",
        solved=True,
        critiques_read=4,
        critiques_passed=4,
        self_score=1.0,
        self_evaluation="",
        unreadable_because=None,
        refines=(),
        model="m-1",
        served_by="",
        seed=1,
        tokens=10,
        critiques=None,
    )


def latex(solution: str) -> str:
    text = "".join(as_latex(RUN, [row(solution)]))
    return text[text.index(r"\begin{document}") :]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("So $x^2 \\ge 0$.", r"\(x^2 \ge 0\)"),
        ("\\[\n\\sum_{i=1}^n i\n\n= 3\n\\]", "\\[\\sum_{i=1}^n i\n= 3\\]"),
        ("\\begin{align*}\na &= b \\tag{1} \\\\\nc &= d\n\\end{align*}", r"\begin{aligned}"),
        ("\\begin{align*}\na &= b \\tag{1} \\\\\nc &= d\n\\end{align*}", r"\quad\text{(1)}"),
        ("\\begin{equation}x = 1\\tag{2}\\end{equation}", r"\[x = 1\tag{2}\]"),
        ("\\boxed{3}", r"\(\boxed{3}\)"),
        ("**Lemma 1.** Let $n = 2$.\nThen", "\\textbf{Lemma 1.} Let \\(n = 2\\).\\\\\nThen"),
        ("- one\n- two", r"\begin{itemize}"),
        ("It costs $5 and 6 %.", r"It costs \$5 and 6 \%."),
    ],
)
def test_formulas_and_marks_become_latex(written: str, read: str) -> None:
    assert read in latex(written)


@pytest.mark.parametrize(
    "formula",
    [
        r"\input{/etc/passwd}",
        r"\directlua{os.execute('id')}",
        r"\csname input\endcsname",
        r"\def\x{\x\x}\x",
        r"^^5cinput{a}",
        r"\begin{filecontents}a\end{filecontents}",
        r"\end{document}",
        r"\includegraphics{a}",
        r"x % y",
        r"{x",
        r"\left( x",
        r"\begin{matrix} 1 \end{cases}",
    ],
)
def test_a_formula_with_another_command_or_an_open_group_stands_as_its_source(formula: str) -> None:
    assert not is_mathematical(formula)
    assert inert(f"${formula}$") == f"` ${formula}$ `"
    assert inert(f"\\[{formula}\\]").startswith("` ")


@pytest.mark.parametrize(
    "text",
    [
        r"\input{/etc/passwd}",
        "![a](/etc/passwd)",
        "`$\\input{/etc/passwd}$`",
        "<img src=/etc/passwd>",
        "``` {=latex}\n\\input{/etc/passwd}\n```",
        "`\\input{/etc/passwd}`{=latex}",
        "a \\[ \\input{/etc/passwd}",
        "$\\input{/etc/passwd}",
    ],
)
def test_what_is_no_formula_is_text(text: str) -> None:
    body = latex(text)
    without_code = body.replace("\\textbackslash", "").replace("\\begin{verbatim}", "%verbatim")
    if "%verbatim" not in without_code:
        assert r"\input" not in without_code
    assert r"\includegraphics" not in without_code


def test_every_environment_and_command_that_is_let_through_can_be_in_a_formula() -> None:
    assert is_mathematical(
        r"\begin{pmatrix} \frac{a}{b} & \sqrt{2} \\ \left. 1 \right] & \} \end{pmatrix}"
    )
    assert is_mathematical(r"\text{if $x>0$} \mathbb{R} \operatorname{lcm} \; \| \{ x \}")
