"""Finds a heading in an answer in any markup: `### Solution`, `**Solution:**`, `Solution:`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from proofloop.method.prompts.reading.normalize import lower
from proofloop.method.prompts.reading.rules import REPEATS, Unreadable

LONGEST_MARKS = 40
"""The most characters of marks and numbers before the words of a heading."""

MAX_TRIES = 1_000

_SPACE = r"[ \t\u00a0\u200b\ufeff]"
_OPENING = (
    rf"{_SPACE}{{0,6}}(?P<marks>\#{{1,6}}{_SPACE}{{0,3}}(?:\*\*|__)?"
    r"|\*\*|__|\\(?:sub){0,2}section\*?\{|<h[1-6]>|<b>|<strong>)?"
)
_NUMBER = rf"{_SPACE}{{0,3}}(?:\d{{1,2}}[.)]{_SPACE}{{0,3}})?"
_MARK_END = r"(?:\*\*|__|\}|</h[1-6]>|</b>|</strong>)?"
_CLOSING = rf"{_SPACE}{{0,3}}[:：.]?{_SPACE}{{0,3}}{_MARK_END}{_SPACE}{{0,3}}[:：.]?"
_ALONE = r"[ \t\u00a0\u200b#]*(?://[^\n]*)?\r?(?=\n)(?:\n(?:={3,}|-{3,})[ \t]*\r?(?=\n))?"


def find_headings(text: str, heading: str) -> list[slice]:
    """The headings of the best kind: exactly as in the pack; else with marks and alone on a line;
    else all others.
    """
    kinds: list[list[slice]] = [[], [], []]
    for found in _lines_with(f"\n{text}\n", heading):
        is_exact = found[0][1:].partition("\n")[0].rstrip("\r\t ") == heading
        is_alone = found["alone"] is not None
        if is_alone or found["marks"] or found["colon"]:
            kind = 0 if is_exact and is_alone else 1 if is_alone and found["marks"] else 2
            kinds[kind].append(slice(found.start(), found.end() - 1))
    return next((found for found in kinds if found), [])


def _lines_with(text: str, heading: str) -> Iterator[re.Match[str]]:
    """The lines that begin with the heading. Raises Unreadable if its first word is repeated too
    often.
    """
    first, pattern = _pattern(heading)
    lowered, tries, line = lower(text), 0, 0
    while line >= 0 and (place := lowered.find(first, line)) >= 0:
        line = lowered.find("\n", place)
        start = lowered.rfind("\n", max(0, place - LONGEST_MARKS), place)
        if start >= 0:
            tries += 1
            if tries > MAX_TRIES:
                raise Unreadable(
                    f"the answer repeats {first!r} more than {MAX_TRIES} times", cause=REPEATS
                )
            if found := pattern.match(text, start):
                yield found


@lru_cache
def _pattern(heading: str) -> tuple[str, re.Pattern[str]]:
    """The first word of a heading, and the pattern of a line that begins with it."""
    named = re.findall(r"\w+", lower(heading))
    words = r"[ \t\u00a0_‐‑–-]{0,3}".join(map(re.escape, named))
    pattern = re.compile(
        rf"\n{_OPENING}{_NUMBER}{words}(?P<closing>{_CLOSING})(?:(?P<alone>{_ALONE})|(?P<colon>(?<=[:：.*_]){_SPACE}(?=\S)))",
        re.IGNORECASE,
    )
    return named[0], pattern
