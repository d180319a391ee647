"""Formulas in a real browser: set under a strict policy, or marked and left as written."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page
from starlette.applications import Starlette

from tests.browser.accessibility import grave_faults
from tests.browser.typeset_pages import app_of, shown

Serve = Callable[[Starlette], str]

PROOF = r"""
## The case $n = 1$

**Lemma (Sylvester–Gallai).** Let \(x_1 < 2\) and $\vec{v} \perp \overrightarrow{AB}$. Then
\[
  \sqrt{x}
  - \frac{1}{2} > 0 \tag{1}
\]
\begin{align} a &= b \\ &\le c \end{align}

| $n$ | $|x|$ |
|---|---|
| 1 | $\binom{n}{2}$ |
"""


def test_every_kind_of_formula_is_set_under_a_strict_policy(page: Page, serve: Serve) -> None:
    shown(page, serve, PROOF)
    assert page.locator("span.formula .katex-html").count() == 8
    assert page.locator("code.formula").count() == 0
    assert page.locator("table .katex-html").count() == 3
    assert page.locator("h5 .katex-html").count() == 1


def test_fonts_come_with_the_page(page: Page, serve: Serve) -> None:
    shown(page, serve, r"$x \in \mathbb{R}$")
    page.evaluate("document.fonts.ready")
    loaded = "[...document.fonts].filter(font => font.status === 'loaded').map(font => font.family)"
    assert {"KaTeX_Main", "KaTeX_Math", "KaTeX_AMS"} <= set(page.evaluate(loaded))


def test_equations_of_each_text_are_numbered_from_1(page: Page, serve: Serve) -> None:
    equations = r"\begin{align} a &= b \\ b &= c \end{align}"
    page.goto(serve(app_of(equations)))
    page.evaluate("document.body.append(document.querySelector('.typeset').cloneNode(true))")
    page.evaluate("typeset.all()")
    numbers = page.locator(".typeset:last-child").aria_snapshot()
    assert page.locator(".eqn-num").count() == 4
    assert "3" not in numbers


def test_the_number_of_a_wide_equation_covers_no_part_of_it(page: Page, serve: Serve) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    sums = " + ".join([r"\sum_{i=1}^n a_i"] * 4)
    shown(page, serve, rf"\[ {sums} = 0 \tag{{10.1}} \]")
    number = page.locator(".katex-tag").bounding_box()
    last = page.locator(".katex-base").last.bounding_box()
    assert number and last and last["x"] + last["width"] <= number["x"]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert [fault for fault in grave_faults(page) if "scrollable" in fault] == []


UNSET = [
    (r"$\frac{1}{2$", "Unexpected end of input"),
    (r"$\notacommand{x}$", "Undefined control sequence"),
    (r"$\href{javascript:alert(1)}{x}$", r"\href is not allowed"),
    (r"$\url{https://example.org}$", r"\url is not allowed"),
    (r"$\includegraphics{https://example.org/x.png}$", r"\includegraphics is not allowed"),
    (r"$\htmlClass{skip}{x}$", r"\htmlClass is not allowed"),
    (r"$\htmlStyle{position: fixed}{x}$", r"\htmlStyle is not allowed"),
    (r"$\color{white} x$", r"\color is not allowed"),
    (r"$\textcolor{#fff}{x}$", r"\textcolor is not allowed"),
    (r"$\def\a{\a\a}\a$", r"\def is not allowed"),
    (r"$\newcommand{\a}{xxxxxxxx}\a\a$", r"\newcommand is not allowed"),
    (r"$\phantom{\text{but only for even } n}$", "a long phantom"),
    (r"$a \kern-99em b$", "negative space"),
    (r"$a \hspace{-9em} b$", "negative space"),
    (r"$a \!\!\!\!\!\! b$", "negative space"),
    (r"$a \kern%" + "\n" + r"-9em b$", "negative space"),
    (r"\[ a \\[-3em] b \]", "negative space"),
    (r"$\raisebox{99em}{x}$", r"\raisebox is not allowed"),
    (r"\[ \mathop{\sum\sum}_{i < j} a_{ij} \]", r"\mathop with an index"),
    ("$" + r"\frac{" * 450 + "x" + "}{y}" * 450 + "$", "nesting of this depth"),  # crashed the page
    (r"$x \tag{1}$", "tag works only in display"),
]


def test_refused_formulas_are_marked_and_stay_as_written(page: Page, serve: Serve) -> None:
    shown(page, serve, "\n\n".join(text for text, _ in UNSET))
    refused = page.locator("code.formula.unset")
    assert refused.all_text_contents() == [text for text, _ in UNSET]
    titles = [element.get_attribute("title") or "" for element in refused.all()]
    assert [
        (title, reason)
        for title, (_, reason) in zip(titles, UNSET, strict=True)
        if reason not in title
    ] == []
    assert page.locator("span.formula").count() == 0
    assert "dotted" in refused.first.evaluate("element => getComputedStyle(element).borderBottom")


HARMLESS = [
    r"$a\!\left(\frac12\right)\!b$",
    r"$\phantom{-}x$",
    r"$\text{若 } x > 0$",
    r"$n为偶数$",
    r"$\mbox{if $x > 0$}$",
    r"\[ a \\ b \]",
    "\\[ x \\tag{†} \\]",
    r"\[ \begin{aligned} a &= b \tag{1} \\ c &= d \tag{2} \end{aligned} \]",
    r"\begin{align} a &= b \label{eq:a} \end{align}",
    "$a\u202fb \\text{non\u2011zero}$",
    r"$x \not\equiv y$",
    r"$\operatorname{lcm}(a, b)$",
]


def test_what_models_write_beside_plain_latex_is_set(page: Page, serve: Serve) -> None:
    shown(page, serve, "\n\n".join(HARMLESS))
    assert page.locator("code.formula").all_text_contents() == []
    assert page.locator("span.formula .katex-html").count() == len(HARMLESS)


HOSTILE = """
<script>document.title = "changed"</script> <img src=x onerror="document.title = 'changed'">
[x](javascript:document.title='changed') ![x](https://example.org/x.png) <https://example.org>
`</code><script>document.title = "changed"</script>` $</code><script>document.title="changed"$
$\\text{<img src=x onerror=alert(1)>}$ <style>body { display: none }</style> &lt;b&gt;
"""


def test_arabic_and_hebrew_run_from_right_to_left_and_formulas_do_not(
    page: Page, serve: Serve
) -> None:
    shown(page, serve, "نفترض أن $a > b$ صحيح.\n\nלכן $1 < 2$ נכון.\n\nSo $x = y$ holds.")

    def lefts(paragraph: int) -> list[float]:
        """The left edges of a paragraph's first word, of its formula's parts, and of its end."""
        return (
            page.locator("p")
            .nth(paragraph)
            .evaluate(
                """(paragraph) => {
                const left = (node) => {
                    const range = new Range();
                    range.selectNodeContents(node);
                    return range.getBoundingClientRect().left;
                };
                const parts = paragraph.querySelectorAll(".katex-html :is(.mord, .mrel)");
                return [paragraph.firstChild, ...parts, paragraph.lastChild].map(left);
            }"""
            )
        )

    for paragraph, is_turned in ((0, True), (1, True), (2, False)):
        begin, *formula, end = lefts(paragraph)
        assert len(formula) == 3
        assert formula == sorted(formula)
        assert (begin > formula[0] > end) == is_turned


def test_hostile_text_stays_inert(page: Page, serve: Serve) -> None:
    shown(page, serve, HOSTILE)
    assert page.title() == "text"
    assert page.locator("a, img, .typeset script, .typeset style").count() == 0
    for line in ("<style>body { display: none }</style>", "&lt;b&gt;", "[x](javascript:document"):
        assert line in page.locator(".typeset").inner_text()


def test_only_formulas_near_the_screen_of_a_long_page_are_set(page: Page, serve: Serve) -> None:
    page.goto(serve(app_of("Let $x_1$ be.\n\n" * 5_000)))
    page.wait_for_selector("span.formula")
    page.wait_for_timeout(300)
    assert 0 < page.locator("span.formula").count() < 500
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    page.wait_for_selector(".typeset > :last-child span.formula")


def test_a_text_of_a_megabyte_opens_in_seconds(page: Page, serve: Serve) -> None:
    text = "Let $x_1 + \\frac{1}{2}$ be **so**.\n\n" * 28_000
    page.goto(serve(app_of(text)))
    page.wait_for_selector("span.formula", timeout=10_000)
    assert "characters are shown as written" in page.locator(".typeset > p > em").inner_text()


def test_without_scripts_formulas_stand_as_written(page: Page, serve: Serve) -> None:
    with_scripts = serve(app_of("Let $x_1 < 2$ be."))
    browser = page.context.browser
    assert browser is not None
    plain = browser.new_context(java_script_enabled=False).new_page()
    plain.goto(with_scripts)
    assert plain.locator(".typeset").inner_text() == "Let $x_1 < 2$ be."
    plain.context.close()


def test_printing_sets_every_formula(page: Page, serve: Serve) -> None:
    page.goto(serve(app_of("Let $x_1$ be.\n\n" * 500)))
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("code.formula").count() == 0
