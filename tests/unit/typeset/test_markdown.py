"""Models' texts as HTML: Markdown is rendered, the rest stays as written, nothing is hidden."""

from __future__ import annotations

import re
import time
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proofloop.typeset.markdown import MAX_TEXT, typeset, typeset_line

ALLOWED = {
    **dict.fromkeys(("blockquote", "br", "em", "hr", "strong"), frozenset[str]()),
    **dict.fromkeys(("h1", "h2", "h3", "h4", "h5", "h6", "p"), frozenset({"data-line"})),
    **dict.fromkeys(("table", "tbody", "thead", "tr", "ul"), frozenset[str]()),
    **dict.fromkeys(("code", "span", "td", "th"), frozenset({"class"})),
    "div": frozenset({"class", "data-line", "dir"}),
    "pre": frozenset({"class", "data-line"}),
    "li": frozenset({"data-line", "data-mark"}),
    "ol": frozenset({"start"}),
}


class Shown(HTMLParser):
    """The elements with their attributes, the text, and the text of each element."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._texts: list[str] = []
        self.feed(html)
        self.close()
        self.text = "".join(self._texts)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self._texts.append(data)


def inside(text: str) -> str:
    """The HTML of a text without its frame and the lines of its blocks."""
    html = typeset(text).removeprefix('<div class="typeset" dir="auto">').removesuffix("</div>")
    return re.sub(r"\n| data-line=\"[\d-]+\"", "", html)


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("# Proof", "<h4>Proof</h4>"),
        ("##### The case $n$", '<h6>The case <code class="formula">$n$</code></h6>'),
        ("**Lemma (Erdős).** *Proof*", "<p><strong>Lemma (Erdős).</strong> <em>Proof</em></p>"),
        ("这是**重点。**然后", "<p>这是<strong>重点。</strong>然后</p>"),
        ("这**“重点”**是", "<p>这<strong>“重点”</strong>是</p>"),
        ("one\ntwo", "<p>one<br>two</p>"),
        ("- 5\n- 6", '<ul><li data-mark="–">5</li><li data-mark="–">6</li></ul>'),
        ("+ 5", '<ul><li data-mark="+">5</li></ul>'),
        ("2. a\n2. b", '<ol start="2"><li data-mark="2.">a</li><li data-mark="2.">b</li></ol>'),
        ("1) a", '<ol><li data-mark="1)">a</li></ol>'),
        ("> 0", "<blockquote><p>0</p></blockquote>"),
        ("a\n---\nb", "<p>a</p><hr><p>b</p>"),
        ("`$x$` <", "<p><code>$x$</code> &lt;</p>"),
        ("```py\n$x$\n```", "<pre><code>$x$</code></pre>"),
        ("~~~ so $x < 1$\ny\n~~~", "<pre><code>so $x &lt; 1$y</code></pre>"),
        ("a\n\\[ x\n- y \\]\nb", '<p>a<code class="formula display">\\[ x- y \\]</code>b</p>'),
        (r"Score: \boxed{0.5}", '<p>Score: <span class="boxed">0.5</span></p>'),
        (r"\boxed{x}", r'<p><code class="formula">\boxed{x}</code></p>'),
        (r"\* \# 5\%", "<p>* # 5%</p>"),
    ],
)
def test_markdown_is_rendered(text: str, html: str) -> None:
    assert inside(text) == html


def test_blocks_name_the_lines_of_their_source() -> None:
    text = (
        "# A\n\nLet\n$$x\n= 2$$ hold.\n\n- b\n- c\n\n1. d\n\n   e\n\n```\nf\n```\n\n|g|\n|-|\n|h|\n"
    )
    blocks = [
        (tag, attributes["data-line"])
        for tag, attributes in Shown(typeset(text)).elements
        if "data-line" in attributes
    ]
    assert blocks == [
        *[("h4", "1-1"), ("p", "3-5"), ("li", "7-7"), ("li", "8-8")],
        *[("li", "10-12"), ("p", "10-10"), ("p", "12-12"), ("pre", "14-16"), ("div", "18-20")],
    ]


def test_a_cell_of_a_table_may_hold_bars_in_a_formula() -> None:
    html = inside("| a | b |\n|---|:-:|\n| $|x|$ | y |")
    assert '<td><code class="formula">$|x|$</code></td>' in html
    assert '<td class="center">y</td>' in html  # a strict policy forbids the attribute `style`


@pytest.mark.parametrize("frame", ["{}", "Let\n{}\n\nso", "> {}", "- {}"])
def test_a_table_with_too_long_a_row_stays_as_written(frame: str) -> None:
    table = "| case | bound |\n|---|---|\n| a | b |\n| $n=1$ | P(A|B) <= 1/2 | extra |"
    inner = table.replace("\n", "\n> ") if frame[0] == ">" else table.replace("\n", "\n  ")
    html = typeset(frame.format(table if frame[0] in "{L" else inner))
    shown = Shown(html)
    assert table in shown.text
    assert "table" not in {tag for tag, _ in shown.elements}
    first = 2 if frame[0] == "L" else 1
    assert ("pre", {"class": "unset", "data-line": f"{first}-{first + 3}"}) in shown.elements


WORDS = ("`", "~", "|", "-", ":", "\n", " ", "> ", "- ", "# ", "*", "_", "\\", "$", "a", "b", "cd")
FENCED = st.builds("```say {}\n{}\n```".format, st.sampled_from(("ab", "$a$")), st.just("cd"))


@given(st.lists(st.sampled_from([*WORDS, "|a|b|\n|-|-|\n|a|", "\n\n"]) | FENCED, max_size=25))
def test_no_letter_is_dropped(parts: list[str]) -> None:
    text = re.sub(r"(?m)(```|~~~)[ `~]*[a-z]+\d*[ ]*$", r"\1", "".join(parts))  # a language
    assert re.findall("[a-z]", Shown(typeset(text)).text) == re.findall("[a-z]", text)


@pytest.mark.parametrize(
    "text",
    [
        "2*3*4",
        "2**3**4",
        "(*) and (*)",
        "a*b*(c + d)",
        "a_1 + b_2",
        "#5",
        "    x",
        "x\n===",
        "[x](https://example.org) ![x](y)",
        "[1]: https://example.org",
        "<https://example.org>",
        "&lt; &#42;",
        r"\( x \{ y \} \\ \, \; \!",
        "<b>x</b>",
        "<!-- x -->",
    ],
)
def test_what_is_not_markdown_stays_as_written(text: str) -> None:
    shown = Shown(typeset(text))
    assert " ".join(shown.text.split()) == " ".join(text.split())
    assert {tag for tag, _ in shown.elements} <= {"div", "p", "br"}


@pytest.mark.parametrize("text", ["a\u202eb", "a\u202eb $x$", "$a\u202eb$", "`a\u202eb`"])
def test_invisible_characters_are_shown_by_their_number(text: str) -> None:
    assert "a⟨U+202E⟩b" in Shown(typeset(text)).text


@given(st.text(st.sampled_from("$\\()[]{}<>&\"'*#_^|`~-+ \n1.ab") | st.characters(), max_size=200))
def test_any_text_becomes_allowed_elements_only(text: str) -> None:
    for html in (typeset(text), typeset_line(text)):
        for tag, attributes in Shown(html).elements:
            assert set(attributes) <= ALLOWED[tag]


@given(st.text(st.sampled_from("abc $<&\"'()[]{}^,;:?"), max_size=200))
def test_a_text_without_marks_is_shown_whole(text: str) -> None:
    assert Shown(typeset(text)).text.split() == text.split()


def test_deep_nesting_is_shown_as_written_since_the_parser_drops_it() -> None:
    text = "> " * 30 + "hidden"
    shown = Shown(typeset(text))
    assert shown.text == text
    assert ("pre", {"class": "unset"}) in shown.elements


def test_the_rest_of_a_long_text_is_shown_as_written() -> None:
    text = "Let $x$ be **so**.\n\n" + "word " * (MAX_TEXT // 5) + "\n\nLet $y$ be **so**."
    shown = Shown(typeset(text))
    formulas = sum(attributes.get("class") == "formula" for _, attributes in shown.elements)
    assert formulas == 1
    assert "characters are shown as written" in shown.text
    assert "$x$" in shown.text and "Let $y$ be **so**." in shown.text


@pytest.mark.parametrize(
    "unit",
    ["word ", "**a ", "# a\n", "*", "_a*", "> ", "- ", "  - ", "`` ` ", "|a|b|\n|-|-|\n", "[", "<"]
    + ["|a|\n|-|\n|a|b|\n"]
    + ["a\n", "1. ", "* a\n ", "~~~\n", "$x_1$ "],
)
def test_20_kb_take_a_second_at_most(unit: str) -> None:
    began = time.process_time()
    typeset(unit * (MAX_TEXT // 5 // len(unit)))
    assert time.process_time() - began < 1.0


def test_a_line_has_no_blocks() -> None:
    line = typeset_line("# Let\n\n\\[ x \\]\n- **be**")
    assert line == (
        '<span class="typeset"># Let <code class="formula">\\[ x \\]</code> -'
        " <strong>be</strong></span>"
    )
