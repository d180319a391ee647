"""Renders a model's text for people: as written, with its LaTeX formulas as MathML.

The text is untrusted, and a person grades by what it shows. None of it becomes HTML; the output has
only the elements and attributes named here; nothing can be hidden by colors, phantoms, negative
space or invisible characters. A formula that cannot be rendered is shown as written. The text is
not read as Markdown, which would turn a line that begins with a plus into a list.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from functools import lru_cache
from xml.etree.ElementTree import Element, tostring

from latex2mathml.converter import convert_to_element
from markupsafe import Markup, escape

from proofloop.typeset.printable import printable

MAX_FORMULA = 5_000
"""The most characters of a rendered formula; people do not read longer ones."""

MAX_SET = 100_000
"""The most characters of rendered formulas on one page: a few seconds' work at worst. The rest is
shown as written.
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
    """LaTeX in a text. A block is on a line of its own."""

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
"""They enclose a formula's number while the text around it is processed; texts with these
characters lose them.
"""

_NO_MARKS = dict.fromkeys(map(ord, (_BEGIN, _END, _END_OF_BLOCK)))
_PLACE = re.compile(f"{_BEGIN}(\\d+){_END}([.,;:!?)\\]]{{0,4}})")
_BLOCK = re.compile(f"(?:(?<!\n)\n+)?{_BEGIN}(\\d+){_END_OF_BLOCK}\n*")
"""A match begins only at the first of several newlines: a match from each would take quadratic
time.
"""


class Typesetter:
    """Renders the texts of one page in order. After `limit` characters of formulas, it shows the
    rest as written.
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
        marked = _emphasized("".join(parts))
        in_line = _PLACE.sub(lambda place: _whole(formulas[int(place[1])], place[2]), marked)
        return Markup(_BLOCK.sub(lambda place: formulas[int(place[1])], in_line))

    def _set(self, formula: Formula) -> str | None:
        if len(formula.latex) > self._left:
            return None
        self._left -= len(formula.latex)
        return mathml(formula.latex, formula.is_block)


def _emphasized(text: str) -> str:
    """Render headings and bold, which change no mathematics, and escape everything else."""
    escaped = str(escape(text))
    return _BOLD.sub(
        r"<strong>\1</strong>", _HEADING.sub(r'<strong class="heading">\1</strong>', escaped)
    )


class Closers:
    """Finds closing marks. It searches no part of a text twice for one mark, so all searches take
    linear time.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._next: dict[str, int] = {}

    def after(self, inside: int, closer: str) -> int:
        """The position of the next `closer`; -1 if it is too far. `inside` must not decrease."""
        if self._next.get(closer, -1) < inside:
            found = re.compile(_DOLLAR if closer == "$" else re.escape(closer)).search(
                self._text, inside
            )
            self._next[closer] = found.start() if found else len(self._text) + MAX_FORMULA
        place = self._next[closer]
        return place if place + len(closer) <= inside + MAX_FORMULA else -1


def _next_formula(text: str, position: int, closers: Closers) -> Formula | None:
    """The first formula after the position."""
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
    """Whether the text between two dollars is a formula: `$5 and $6` has none."""
    is_tight = not inside[0].isspace() and not inside[-1].isspace()
    return is_tight and "\n\n" not in inside and not follows.isdigit()


@lru_cache(maxsize=4096)
def mathml(latex: str, is_block: bool) -> str | None:
    """The formula as MathML, or None if it cannot be rendered."""
    try:
        element = convert_to_element(latex.strip(), display="block" if is_block else "inline")
        return tostring(_harmless(element), encoding="unicode")
    except Exception:  # the parser raises any error for bad LaTeX: show the text
        return None


def _harmless(element: Element) -> Element:
    """A copy with the allowed elements and attributes. Other elements become rows, so that their
    content stays readable.
    """
    tag = element.tag if element.tag in ELEMENTS else "mrow"
    copy = Element(
        tag, {name: value for name, value in element.attrib.items() if _is_harmless(name, value)}
    )
    if tag == "mspace" and _WIDTH.fullmatch(element.get("width", "")):
        copy.set("width", element.get("width", ""))
    if element.text:
        # The library writes its symbols as entities.
        copy.text = printable(html.unescape(element.text))
    copy.extend([_harmless(child) for child in element])
    return copy


def _is_harmless(name: str, value: str) -> bool:
    return name in ATTRIBUTES and (name not in _LENGTHS or bool(_LENGTH.fullmatch(value)))


def _whole(formula: str, punctuation: str) -> str:
    """Keep a formula and its comma on one line."""
    return f'<span class="whole">{formula}{punctuation}</span>' if punctuation else formula


def _as_written(source: str) -> str:
    return f'<code class="tex">{escape(source)}</code>'
