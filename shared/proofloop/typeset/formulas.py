"""Finds the LaTeX formulas of a text: `$ $`, `$$ $$`, `\\( \\)`, `\\[ \\]`, environments such as
align, and `\\boxed{...}` alone.

Formulas are found before Markdown is read: a line of a formula may begin with `-` or `>`, and a
cell of a table may hold `|x|`.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

MAX_FORMULA = 5_000
"""The most characters of a formula; people do not read longer ones."""

MAX_IN_TEXT = 8
"""The most formulas inside the `\\text{...}` of one formula."""


@dataclass(frozen=True)
class Formula:
    """The place of a formula in the text, with its marks. A display formula stands alone."""

    begin: int
    end: int
    is_display: bool


_ENVIRONMENT = (
    r"(?:align|alignat|aligned|alignedat|array|[bBpvV]?matrix|smallmatrix|[dr]?cases|equation"
    r"|eqnarray|flalign|gather|gathered|multline|split)\*?"
)
_MARK = re.compile(
    r"\\\\|\\\$|(?P<code>`+)|\$\$|\$|\\\[|\\\]|\\\(|\\\)"
    rf"|\\(?:begin|end)\{{{_ENVIRONMENT}\}}|\\boxed *(?=\{{)"
)
_CLOSERS = {"$$": "$$", "\\[": "\\]", "\\(": "\\)"}
_TEXT_COMMAND = re.compile(r"\\(?:text\w*|mbox|hbox) *\Z")
_MATHEMATICAL = re.compile(r"[\\^_=<>+]|\A\s*\w\s*\Z")


def find_formulas(text: str) -> Iterator[Formula]:
    """The formulas in order. Marks that nothing closes, and marks in code, are text."""
    scan = _Scan(text)
    position = 0
    for mark in scan.marks:
        if mark.start() < position:
            continue
        if mark["code"]:
            position = scan.end_of_code(mark)
        elif found := scan.formula(mark):
            position = found.end
            yield found


class _Scan:
    """The marks of one text, found once: all searches together take linear time."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.marks = list(_MARK.finditer(text))
        self._places: dict[str, list[int]] = defaultdict(list)
        for mark in self.marks:
            self._places[mark[0]].append(mark.start())

    def formula(self, mark: re.Match[str]) -> Formula | None:
        """The formula that this mark opens, if any."""
        opener, begin, inside = mark[0], mark.start(), mark.end()
        if opener.startswith("\\begin"):
            closer = opener.replace("begin", "end", 1)
            return self._enclosed(begin, inside, closer, is_display=True)
        if opener.startswith("\\boxed"):
            end = _end_of_group(self._text, inside)
            return Formula(begin, end, False) if end else None
        if opener == "$":
            return self._between_dollars(begin, inside)
        if opener in _CLOSERS:
            found = self._enclosed(begin, inside, _CLOSERS[opener], opener != "\\(")
            has_blank_line = found and "\n\n" in self._text[begin : found.end]
            return None if opener != "\\[" and has_blank_line else found
        return None

    def _enclosed(self, begin: int, inside: int, closer: str, is_display: bool) -> Formula | None:
        place = self._next(closer, inside)
        if place is None or not self._text[inside:place].strip():
            return None
        return Formula(begin, place + len(closer), is_display)

    def _between_dollars(self, begin: int, inside: int) -> Formula | None:
        first = place = self._next("$", inside)
        for _ in range(MAX_IN_TEXT):
            if place is None or not _is_in_text_command(self._text[inside:place]):
                break
            after = self._next("$", place + 1)  # skip the formula in \text{if $x$}
            place = self._next("$", after + 1) if after is not None else None
        place = first if place is None else place
        if place is None or not _is_inline(self._text, inside, place):
            return None
        return Formula(begin, place + 1, False)

    def _next(self, closer: str, inside: int) -> int | None:
        places = self._places[closer]
        index = bisect_left(places, inside)
        if index == len(places) or places[index] > inside + MAX_FORMULA:
            return None
        return places[index]

    def end_of_code(self, mark: re.Match[str]) -> int:
        """The end of a code span or fence; the end of the mark itself if nothing closes it."""
        places = self._places[mark[0]]
        index = bisect_left(places, mark.end())
        return places[index] + len(mark[0]) if index < len(places) else mark.end()


def _is_in_text_command(latex: str) -> bool:
    """Whether the position after `latex` is inside the braces of a `\\text{`."""
    brace = latex.rfind("{")
    return brace > latex.rfind("}") and bool(
        _TEXT_COMMAND.search(latex[max(0, brace - 20) : brace])
    )


def _is_inline(text: str, inside: int, closer: int) -> bool:
    """Whether the text between two dollars is a formula: `$5 and $6` has none."""
    latex, follows = text[inside:closer], text[closer + 1 : closer + 2]
    if not latex.strip() or "\n\n" in latex or follows.isdigit():
        return False
    if latex[0].isspace() and latex[-1].isspace():
        return bool(_MATHEMATICAL.search(latex))
    return not latex[0].isspace() and not latex[-1].isspace()


def _end_of_group(text: str, brace: int) -> int | None:
    """The position after the group that begins at `brace`."""
    depth = 0
    for each in re.finditer(r"\\.|[{}]", text[brace : brace + 200], re.DOTALL):
        depth += {"{": 1, "}": -1}.get(each[0], 0)
        if depth == 0 and each[0] == "}":
            return brace + each.end()
    return None
