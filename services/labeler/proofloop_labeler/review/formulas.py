"""A model's text for reading: as it was written, with its LaTeX formulas set as MathML.

The text is untrusted and a person decides by what it shows. So nothing of it becomes HTML, only
elements and attributes named here leave this module, and nothing can be hidden: no colours, no
phantoms, no negative space, no invisible characters. What cannot be set stands there as written. It
is no Markdown: that would make a list of a line that begins with a plus.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from functools import lru_cache
from xml.etree.ElementTree import Element, tostring

from latex2mathml.converter import convert_to_element
from markupsafe import Markup, escape

from proofloop.report.samples import printable

MAX_FORMULA = 5_000
"""Characters of one formula that is set; a longer one is no formula a person reads."""

MAX_SET = 100_000
"""Characters of formulas that are set on one page, a few seconds' work at worst. The rest stands as
written.
"""

ELEMENTS = frozenset({
    "math", "menclose", "mfrac", "mi", "mmultiscripts", "mn", "mo", "mover", "mprescripts",
    "mroot", "mrow", "mspace", "msqrt", "mstyle", "msub", "msubsup", "msup", "mtable", "mtd",
    "mtext", "mtr", "munder", "munderover", "none",
})  # fmt: skip
ATTRIBUTES = frozenset({
    "accent", "accentunder", "columnalign", "columnlines", "columnspacing", "display",
    "displaystyle", "fence", "form", "largeop", "linethickness", "mathvariant", "maxsize",
    "minsize", "movablelimits", "notation", "rowlines", "rowspacing", "scriptlevel", "separator",
    "stretchy", "symmetric",
})  # fmt: skip
_WIDTH = re.compile(r"[0-2](\.\d{1,3})?em")
_LENGTHS = {"linethickness", "maxsize", "minsize", "scriptlevel", "rowspacing", "columnspacing"}
_LENGTH = re.compile(r"\+?\d(\.\d{1,3})?(em|pt|ex|px)?( \d(\.\d{1,3})?(em|pt|ex|px)?)*")


@dataclass(frozen=True)
class Formula:
    """LaTeX found in a text; a block stands on a line of its own."""

    begin: int
    end: int
    latex: str
    is_block: bool


_OPENER = re.compile(r"\\\\|\\\$|\$\$|\$|\\\[|\\\(|\\begin\{(?P<environment>[A-Za-z]{1,20}\*?)\}")
_CLOSERS = {"$$": "$$", "\\[": "\\]", "\\(": "\\)"}
_ENVIRONMENTS = frozenset(
    {"align", "alignat", "aligned", "array", "cases", "equation", "gather", "multline", "split"}
)
_DOLLAR = r"(?<!\\)\$"
_HEADING = re.compile(r"^#{1,6} +(.{1,300})$", re.MULTILINE)
_BOLD = re.compile(r"(?<![\w*])\*\*(?=\S)([^*\n]{1,300})(?<=\S)\*\*(?![\w*])")
_BEGIN, _END, _END_OF_BLOCK = "\ue000", "\ue001", "\ue002"
"""Between these stands the number of a formula while the text around it is worked on; no text keeps
them.
"""

_NO_MARKS = dict.fromkeys(map(ord, (_BEGIN, _END, _END_OF_BLOCK)))
_PLACE = re.compile(f"{_BEGIN}(\\d+){_END}([.,;:!?)\\]]{{0,4}})")
_BLOCK = re.compile(f"(?:(?<!\n)\n+)?{_BEGIN}(\\d+){_END_OF_BLOCK}\n*")
"""Only the first newline of many begins a match: begun at each of them, all searches would be
quadratic.
"""


class Setter:
    """Sets the texts of one page, those that come first before the others, until so many characters
    are set.
    """

    def __init__(self, limit: int = MAX_SET) -> None:
        self._left = limit

    def readable(self, text: str) -> Markup:
        """The text as safe HTML."""
        text = printable(text).translate(_NO_MARKS)
        parts: list[str] = []
        formulas: list[str] = []
        position, closers = 0, Closers(text)
        while (found := _next_formula(text, position, closers)) is not None:
            mark = f"{_BEGIN}{len(formulas)}{_END_OF_BLOCK if found.is_block else _END}"
            parts += [text[position : found.begin], mark]
            formulas.append(self._set(found) or _as_written(text[found.begin : found.end]))
            position = found.end
        parts.append(text[position:])
        marked = _emphasised("".join(parts))
        in_line = _PLACE.sub(lambda place: _whole(formulas[int(place[1])], place[2]), marked)
        return Markup(_BLOCK.sub(lambda place: formulas[int(place[1])], in_line))

    def _set(self, formula: Formula) -> str | None:
        if len(formula.latex) > self._left:
            return None
        self._left -= len(formula.latex)
        return mathml(formula.latex, formula.is_block)


def _emphasised(text: str) -> str:
    """Headings and bold, the two marks that models write and that change no mathematics; all else
    is escaped.
    """
    escaped = str(escape(text))
    return _BOLD.sub(
        r"<strong>\1</strong>", _HEADING.sub(r'<strong class="heading">\1</strong>', escaped)
    )


class Closers:
    """Where a mark is closed next. Nothing is searched twice for one mark, so all searches in a
    text are linear.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._next: dict[str, int] = {}

    def after(self, inside: int, closer: str) -> int:
        """The place of the first one from `inside` on, which only grows; -1 if it is too far."""
        if self._next.get(closer, -1) < inside:
            found = re.compile(_DOLLAR if closer == "$" else re.escape(closer)).search(
                self._text, inside
            )
            self._next[closer] = found.start() if found else len(self._text) + MAX_FORMULA
        place = self._next[closer]
        return place if place + len(closer) <= inside + MAX_FORMULA else -1


def _next_formula(text: str, position: int, closers: Closers) -> Formula | None:
    """The first formula from here on."""
    for opener in _OPENER.finditer(text, position):
        mark, begin, inside = opener[0], opener.start(), opener.end()
        if mark in _CLOSERS:
            closer = closers.after(inside, _CLOSERS[mark])
            if closer > inside:
                return Formula(begin, closer + 2, text[inside:closer], mark != "\\(")
        elif mark == "$":
            closer = closers.after(inside, "$")
            if closer > inside and _is_inline(text[inside:closer], text[closer + 1 : closer + 2]):
                return Formula(begin, closer + 1, text[inside:closer], False)
        elif (name := opener["environment"]) and name.rstrip("*") in _ENVIRONMENTS:
            closer = closers.after(inside, f"\\end{{{name}}}")
            if closer > inside:
                end = text.index("}", closer) + 1
                return Formula(begin, end, text[begin:end], True)
    return None


def _is_inline(inside: str, follows: str) -> bool:
    """Whether what stands between two dollars is a formula: `$5 and $6` is not."""
    is_tight = not inside[0].isspace() and not inside[-1].isspace()
    return is_tight and "\n\n" not in inside and not follows.isdigit()


@lru_cache(maxsize=4096)
def mathml(latex: str, is_block: bool) -> str | None:
    """The formula as MathML, or None if it cannot be set."""
    try:
        element = convert_to_element(latex.strip(), display="block" if is_block else "inline")
        return tostring(_harmless(element), encoding="unicode")
    except Exception:  # a parser's answer to text that is no LaTeX can be any error: show the text
        return None


def _harmless(element: Element) -> Element:
    """A copy that has only what is named above. Unknown elements become rows, so that what they
    hold stays readable.
    """
    tag = element.tag if element.tag in ELEMENTS else "mrow"
    copy = Element(
        tag, {name: value for name, value in element.attrib.items() if _is_harmless(name, value)}
    )
    if tag == "mspace" and _WIDTH.fullmatch(element.get("width", "")):
        copy.set("width", element.get("width", ""))
    if element.text:
        copy.text = printable(
            html.unescape(element.text)
        )  # the library writes its symbols as entities
    copy.extend([_harmless(child) for child in element])
    return copy


def _is_harmless(name: str, value: str) -> bool:
    return name in ATTRIBUTES and (name not in _LENGTHS or bool(_LENGTH.fullmatch(value)))


def _whole(formula: str, punctuation: str) -> str:
    """A line does not end between a formula and its comma."""
    return f'<span class="whole">{formula}{punctuation}</span>' if punctuation else formula


def _as_written(source: str) -> str:
    return f'<code class="tex">{escape(source)}</code>'
