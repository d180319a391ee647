"""A model's text for reading: as it was written, with its LaTeX formulas set as MathML.

The text is untrusted and a person decides by what it shows. So nothing of it becomes HTML, only elements and attributes
named here leave this module, and nothing can be hidden: no colours, no phantoms, no negative space. What cannot be set
stands there as written. It is no Markdown: that would make a list of a line that begins with a plus.
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
"""Characters of formulas that are set on one page, a few seconds' work at worst. The rest stands as written."""

ELEMENTS = frozenset({
    "math", "menclose", "mfrac", "mi", "mmultiscripts", "mn", "mo", "mover", "mprescripts", "mroot", "mrow", "mspace",
    "msqrt", "mstyle", "msub", "msubsup", "msup", "mtable", "mtd", "mtext", "mtr", "munder", "munderover", "none",
})  # fmt: skip
ATTRIBUTES = frozenset({
    "accent", "accentunder", "columnalign", "columnlines", "columnspacing", "display", "displaystyle", "fence", "form",
    "largeop", "linethickness", "mathvariant", "maxsize", "minsize", "movablelimits", "notation", "rowlines",
    "rowspacing", "scriptlevel", "separator", "stretchy", "symmetric",
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
_ENVIRONMENTS = frozenset({"align", "alignat", "aligned", "array", "cases", "equation", "gather", "multline", "split"})
_DOLLAR = re.compile(r"(?<!\\)\$")
_HEADING = re.compile(r"^#{1,6} +(.{1,300})$", re.MULTILINE)
_BOLD = re.compile(r"(?<![\w*])\*\*(?=\S)([^*\n]{1,300})(?<=\S)\*\*(?![\w*])")
_BEGIN, _END, _END_OF_BLOCK = "\ue000", "\ue001", "\ue002"
"""Between these stands the number of a formula while the text around it is worked on; no text keeps them."""

_NO_MARKS = dict.fromkeys(map(ord, (_BEGIN, _END, _END_OF_BLOCK)))
_PLACE = re.compile(f"{_BEGIN}(\\d+){_END}([.,;:!?)\\]]{{0,4}})")
_BLOCK = re.compile(f"\n*{_BEGIN}(\\d+){_END_OF_BLOCK}\n*")


class Setter:
    """Sets the texts of one page, those that come first before the others, until so many characters are set."""

    def __init__(self, limit: int = MAX_SET) -> None:
        self._left = limit

    def readable(self, text: str) -> Markup:
        """The text as safe HTML."""
        text = printable(text).translate(_NO_MARKS)
        parts: list[str] = []
        formulas: list[str] = []
        position = 0
        while (found := _next_formula(text, position)) is not None:
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
    """Headings and bold, the two marks that models write and that change no mathematics; all else is escaped."""
    escaped = str(escape(text))
    return _BOLD.sub(r"<strong>\1</strong>", _HEADING.sub(r'<strong class="heading">\1</strong>', escaped))


def _next_formula(text: str, position: int) -> Formula | None:
    """The first formula from here on; each search is short whatever the text."""
    for opener in _OPENER.finditer(text, position):
        mark, begin, inside = opener[0], opener.start(), opener.end()
        if mark in _CLOSERS:
            closer = text.find(_CLOSERS[mark], inside, inside + MAX_FORMULA)
            if closer > inside:
                return Formula(begin, closer + 2, text[inside:closer], mark != "\\(")
        elif mark == "$":
            closing = _DOLLAR.search(text, inside, inside + MAX_FORMULA)
            if closing and _is_inline(text, inside, closing.start()):
                return Formula(begin, closing.end(), text[inside : closing.start()], False)
        elif (name := opener["environment"]) and name.rstrip("*") in _ENVIRONMENTS:
            closer = text.find(f"\\end{{{name}}}", inside, inside + MAX_FORMULA)
            if closer > inside:
                end = text.index("}", closer) + 1
                return Formula(begin, end, text[begin:end], True)
    return None


def _is_inline(text: str, begin: int, end: int) -> bool:
    """Whether what stands between two dollars is a formula: `$5 and $6` is not."""
    inside = text[begin:end]
    is_tight = bool(inside) and not inside[0].isspace() and not inside[-1].isspace()
    return is_tight and "\n\n" not in inside and not text[end + 1 : end + 2].isdigit()


@lru_cache(maxsize=4096)
def mathml(latex: str, is_block: bool) -> str | None:
    """The formula as MathML, or None if it cannot be set."""
    try:
        element = convert_to_element(latex.strip(), display="block" if is_block else "inline")
        return tostring(_harmless(element), encoding="unicode")
    except Exception:  # a parser's answer to text that is no LaTeX can be any error: show the text
        return None


def _harmless(element: Element) -> Element:
    """A copy that has only what is named above. Unknown elements become rows, so that what they hold stays readable."""
    tag = element.tag if element.tag in ELEMENTS else "mrow"
    copy = Element(tag, {name: value for name, value in element.attrib.items() if _is_harmless(name, value)})
    if tag == "mspace" and _WIDTH.fullmatch(element.get("width", "")):
        copy.set("width", element.get("width", ""))
    if element.text:
        copy.text = html.unescape(element.text)  # the library writes its symbols as entities
    copy.extend([_harmless(child) for child in element])
    return copy


def _is_harmless(name: str, value: str) -> bool:
    return name in ATTRIBUTES and (name not in _LENGTHS or bool(_LENGTH.fullmatch(value)))


def _whole(formula: str, punctuation: str) -> str:
    """A line does not end between a formula and its comma."""
    return f'<span class="whole">{formula}{punctuation}</span>' if punctuation else formula


def _as_written(source: str) -> str:
    return f'<code class="tex">{escape(source)}</code>'
