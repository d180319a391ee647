"""Finds the lines of a proof that a critique is about.

A critique quotes the proof, repeats a formula of it, or names a step. White space, marks of
Markdown and of LaTeX's spacing do not count. What is not found has no place: nothing is guessed.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from proofloop.typeset.formulas import find_formulas

LEAST_QUOTED, LEAST_FORMULA = 8, 14
"""The fewest characters of a quotation and of a formula that tell a place, without spaces."""

MOST_PLACES = 6
"""The most places of one critique."""

MOST_CHARACTERS = 200_000
"""Of a proof and of a critique; the rest is not searched."""

_QUOTED = re.compile(
    r"“([^“”]{4,600}+)”|\"([^\"\n]{4,600}+)\"|「([^「」]{4,600}+)」|``([^`']{4,600}+)''"
    r"|`([^`\n]{4,600}+)`|^ {0,3}> ?(.{4,600}+)$",
    re.MULTILINE,
)
"""A quotation has no further opening mark, so each character is looked at a few times only."""

_PAIRED = re.compile(r"\\\\|```|\$\$|\\[\[\]]|\\(?:begin|end)\{")
r"""Marks around code and display formulas. `\\[2pt]`, the end of a line of a formula, is none."""

_NAMED = re.compile(
    r"\b(step|case|claim|lemma|part|line|equation)\s+(\(?[0-9]{1,3}[a-z]?\)?)", re.IGNORECASE
)
_BREAK = re.compile(
    r"\n[ \t]*\n|\n(?=[#*_ ]{0,6}(?:step|case|claim|lemma|part)[ ]+[0-9])", re.IGNORECASE
)
_ELLIPSIS = re.compile(r"\.{3,}|…|\[\.\.\.\]")
_LIGHT = re.compile(
    r"\\(?:left|right|[,;:! ]|quad|qquad|displaystyle|bigl?|bigr)|[\s$*`{}~]|\\[()\[\]]"
)
_QUOTATION_MARKS = str.maketrans("‘’“”「」", '\'\'""""')


@dataclass(frozen=True)
class Place:
    """Block `block` of the proof, and the words of the critique that point there."""

    block: int
    words: str


def blocks_of(text: str) -> list[str]:
    """The paragraphs of a text, also those that begin with "Step 2" on a new line. A blank line
    inside code or a display formula ends none.
    """
    blocks: list[str] = []
    parts: list[str] = []
    marks = Counter[str]()
    for paragraph in _BREAK.split(text):
        if not parts and not paragraph.strip():
            continue
        parts.append(paragraph)
        marks.update(_PAIRED.findall(paragraph))
        if not _is_open(marks):
            blocks.append("\n\n".join(parts))
            parts, marks = [], Counter()
    return [*blocks, "\n\n".join(parts)] if parts else blocks


def _is_open(marks: Mapping[str, int]) -> bool:
    """Whether code or a formula continues after paragraphs with so many marks."""
    return (
        marks["```"] % 2 == 1
        or marks["$$"] % 2 == 1
        or marks["\\["] > marks["\\]"]
        or marks["\\begin{"] > marks["\\end{"]
    )


class Searched:
    """The blocks of a proof, prepared once for the search of many critiques' quotations."""

    def __init__(self, blocks: Sequence[str]) -> None:
        self._starts: list[int] = []
        self._names: dict[str, int] = {}
        parts: list[str] = []
        length = 0
        for number, block in enumerate(blocks):
            self._names.setdefault(_named_at_start(block), number)
            self._starts.append(length)
            parts.append(plain(block[:MOST_CHARACTERS]))
            length += len(parts[-1])
        self._text = "".join(parts)

    def places(self, analysis: str) -> list[Place]:
        """The places that the critique names, in the order of the proof; one for each block."""
        found: dict[int, str] = {}
        for words, least in _pointers(analysis[:MOST_CHARACTERS]):
            block = self._block(words, least)
            if block is not None:
                found.setdefault(block, words)
        for match in _NAMED.finditer(analysis[:MOST_CHARACTERS]):
            block = self._names.get(plain(match[0]))
            if block is not None:
                found.setdefault(block, match[0])
        chosen = sorted(list(found.items())[:MOST_PLACES])
        return [Place(block, " ".join(words.split())) for block, words in chosen]

    def _block(self, words: str, least: int) -> int | None:
        """The block that has the longest part of the words between ellipses."""
        part = max(map(plain, _ELLIPSIS.split(words)), key=len)
        position = self._text.find(part) if len(part) >= least else -1
        return bisect_right(self._starts, position) - 1 if position >= 0 else None


def _pointers(analysis: str) -> Iterator[tuple[str, int]]:
    for match in _QUOTED.finditer(analysis):
        yield next(filter(None, match.groups())), LEAST_QUOTED
    for formula in find_formulas(analysis):
        yield analysis[formula.begin : formula.end], LEAST_FORMULA


def plain(text: str) -> str:
    """The text without the marks and spaces that do not count in a comparison."""
    return _LIGHT.sub("", text.translate(_QUOTATION_MARKS)).lower().strip(".,;:")


def _named_at_start(block: str) -> str:
    """`step2` of a block that begins with "**Step 2.**"; empty for others."""
    match = _NAMED.match(block.lstrip("#*_ \n"))
    return plain(match[0]) if match else ""
