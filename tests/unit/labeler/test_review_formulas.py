"""How the page to grade on shows a model's text: formulas set, everything else as it was written,
nothing hidden.
"""

from __future__ import annotations

import re
import time
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proofloop_labeler.review.formulas import ATTRIBUTES, ELEMENTS, Typesetter

OF_FORMULAS, OURS = ATTRIBUTES | {"width"}, frozenset({"class"})
ALLOWED = {
    **dict.fromkeys(ELEMENTS, OF_FORMULAS),
    **dict.fromkeys(("strong", "span", "code"), OURS),
}


class Shown(HTMLParser):
    """What a browser makes of it: the elements with their attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._texts: list[str] = []
        self.feed(page)
        self.close()
        self.text = "".join(self._texts)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self._texts.append(data)

    def names(self) -> set[str]:
        return {tag for tag, _ in self.elements}


def shown(text: str) -> Shown:
    return Shown(Typesetter().readable(text))


@pytest.mark.parametrize(
    ("text", "display"),
    [
        (r"Let $x_1 = 2$.", "inline"),
        (r"Let \(x_1 = 2\).", "inline"),
        (r"So \[ x_1 = 2 \] holds.", "block"),
        ("So\n$$\nx_1 = 2\n$$\nholds.", "block"),
        (r"So \begin{align*} x_1 &= 2 \end{align*} holds.", "block"),
    ],
)
def test_formulas_are_set_between_every_kind_of_marks(text: str, display: str) -> None:
    found = shown(text)
    assert ("math", {"display": display}) in found.elements
    assert "msub" in found.names()
    assert not re.search(r"\$|\\", found.text)


@pytest.mark.parametrize(
    "text",
    [
        "It costs $5 and $6.",
        r"The score is \boxed{1}.",
        "Open $x + y and no end",
        r"Open \( x, \[ y, \begin{align} z",
        r"\$5 and \$6",
        r"\\[1em] a new line of a table",
        "a $\n\n$ b",
        "$$$$",
        r"\begin{verbatim} x \end{verbatim}",
    ],
)
def test_what_is_no_formula_stands_as_written(text: str) -> None:
    assert (shown(text).text, shown(text).elements) == (text, [])


@pytest.mark.parametrize(
    "text", ["+ 5", "> 0", "1. a\n2. b", "a*b*c", "2**3**4", "__x__", "    x", "---\n===", "#5"]
)
def test_no_character_of_a_calculation_is_taken_for_markdown(text: str) -> None:
    assert (shown(text).text, shown(text).elements) == (text, [])


def test_headings_and_bold_are_set_also_around_formulas() -> None:
    found = shown("\\[x\\]\n## The case $n = 1$\n**Step $a$.** Then")
    assert [name for name, _ in found.elements].count("strong") == 2
    assert found.text == "xThe case n=1\nStep a. Then"


def test_a_formula_that_cannot_be_set_stands_there_with_its_marks() -> None:
    found = shown(r"Then $\left( \frac{1}{2}$ holds.")
    assert found.elements == [("code", {"class": "tex"})]
    assert found.text == r"Then $\left( \frac{1}{2}$ holds."


@pytest.mark.parametrize(
    "text", ["a\u202eb", "a\u202eb $x$", "$\\text{a\u202eb}$", "$\\text{a&#x202E;b}$", "$a\u202eb$"]
)
def test_what_is_invisible_or_turns_the_text_around_is_shown_by_its_number(text: str) -> None:
    assert shown(text).text.startswith("a⟨U+202E⟩b")
    assert shown("1\u200b2 \u2066 \ufeff").text == "1⟨U+200B⟩2 ⟨U+2066⟩ ⟨U+FEFF⟩"


HOSTILE = [
    "<script>alert(1)</script>",
    "</div></main><script>alert(1)</script>",
    '<img src=x onerror="alert(1)">',
    r"$\text{<script>alert(1)</script>}$",
    r"$\text{&lt;script&gt;alert(1)&lt;/script&gt;}$",
    r"$<img src=x onerror=alert(1)>$",
    r"$\href{javascript:alert(1)}{x}$",
    r'$\style{position:fixed;top:0" onload="alert(1)}{x}$',
    r"$\class{warning}{x}$",
    r"$\color{white}{x}$ $\textcolor{#fff}{x}$ $\colorbox{white}{x}$",
    r"$\phantom{x} \hphantom{x} \vphantom{x}$",
    r"$a\hspace{-99em}b\kern-99em c\!\!\!$",
    r"$\raise 99em x \lower -99em y \mathclap{z} \rlap{x}$",
    "[x](javascript:alert(1)) ![x](http://example.org/x.png)",
    "\ue0000\ue001 \ue0007\ue002 $x$",
    "**<b>$x$</b>**\n# <i>",
    "a\x00b\x07c\u202e",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_becomes_nothing_but_text_and_harmless_formulas(text: str) -> None:
    for tag, attributes in shown(text).elements:
        assert set(attributes) <= ALLOWED[tag], (tag, attributes)
        assert not any(
            re.search(r"-\d|javascript|script", value or "") for value in attributes.values()
        )


@given(st.text(st.sampled_from("$\\()[]{}<>&\"'*#_^ \nabc1+=;:/") | st.characters(), max_size=200))
def test_whatever_a_text_is_only_allowed_elements_come_out(text: str) -> None:
    for tag, attributes in shown(text).elements:
        assert set(attributes) <= ALLOWED[tag]


@given(
    st.text(st.sampled_from("abc <>&\"'+-=\n*#"), max_size=200).filter(
        lambda text: "**" not in text and "# " not in text
    )
)
def test_a_text_without_formulas_is_shown_whole(text: str) -> None:
    assert shown(text).text == text


SIZE = 100_000


@pytest.mark.parametrize(
    "unit",
    [
        "word ",
        "$",
        "$ ",
        "$$ a ",
        "\\( ",
        "\\[",
        "\\begin{align} ",
        "**a ",
        "# a\n",
        "{",
        "$x_1+y^2$ ",
        "$\\frac{",
        "\\left(",
    ],
)
def test_a_text_of_100_kb_takes_seconds_at_most(unit: str) -> None:
    text = unit * (SIZE // len(unit))
    began = time.process_time()
    page = Typesetter().readable(f"${text}$" if unit in ("{", "\\left(") else text)
    assert time.process_time() - began < 10
    assert len(page) >= SIZE // 2


@pytest.mark.parametrize(
    "unit", ["\n", " ", "\\", "[", "(", "\\(", "\\\\$", "$a$\n\n\n", "# ", "** "]
)
def test_a_text_of_marks_that_nothing_closes_takes_no_time(unit: str) -> None:
    text = unit * (SIZE // len(unit))
    began = time.process_time()
    Typesetter(limit=0).readable(text)
    assert time.process_time() - began < 1


def test_empty_lines_around_formulas_that_stand_alone_are_dropped() -> None:
    assert shown("\n\na\n\n\n$$x$$\n\n\n\\[y\\]\n\nb\n").text == "\n\naxyb\n"


def test_a_page_sets_so_many_characters_of_formulas_and_leaves_the_rest_as_written() -> None:
    setter = Typesetter(limit=10)
    found = Shown(setter.readable("$x + y$ and $x^{12345}$ and $z$"))
    assert [tag for tag, _ in found.elements if tag in ("math", "code")] == ["math", "code", "math"]
    assert "$x^{12345}$" in found.text
    assert Shown(setter.readable("$x + y = z$")).names() == {"code"}


def test_a_formula_nested_too_deeply_does_no_harm() -> None:
    assert shown("$" + "{" * 2000 + "}" * 2000 + "$").names() == {"code"}
