"""Reads the three answer formats. Model output is untrusted: nothing here raises on any text, and every pass is linear.

Only the final response counts (after the last `</think>`), outside closed code fences, and of the scores only the last
one that follows its fixed phrase. The fixed phrases are those of the method; the released model's own template spells
one "overal".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from proofloop.records import Score, Verdict

EVALUATION_INTRO = "Here is my evaluation of the solution:"
EVALUATION_SCORE = "Based on my evaluation, the final overall score should be:"
META_INTRO = 'Here is my analysis of the "solution evaluation":'
META_SCORE = 'Based on my analysis, I will rate the "solution evaluation" as:'
SOLUTION_HEADING = "## Solution"
SELF_HEADING = "## Self Evaluation"

MAX_ANSWER_CHARS = 4 << 20
"""A longer final response is no proof anyone will read; 128k tokens are about half a megabyte."""

MAX_FENCES = 10_000
"""More code fences than any answer has: what repeats them by the hundred thousand is garbage and costs no time."""

_SCORE_ANCHOR = re.compile(r"Based on my evaluation, the final overall? score should be:")
_META_ANCHOR = re.compile(re.escape(META_SCORE))
_FENCE = re.compile(r"^ {0,3}(`{3,}(?=[^`\n]*$)|~{3,})([^\n]*)$", re.MULTILINE)
_VISIBLE = re.compile(r"[^\n]")
_BOX = re.compile(r"[\s*_$]{0,20}(?:\\\[|\\\()?\s{0,5}\\boxed\s{0,5}\{")
_SPELLINGS: dict[str, Score] = {
    **dict.fromkeys(("0", "0.0", "0.00"), 0.0),
    **dict.fromkeys(("0.5", ".5", "0.50", "1/2", r"\frac12", r"\frac{1}{2}", r"\frac1{2}", r"\frac{1}2"), 0.5),
    **dict.fromkeys(("1", "1.0", "1.00"), 1.0),
}
_LONGEST_SPELLING = 40


@dataclass(frozen=True)
class ParsedEvaluation:
    """An analysis with its score: `text` is the whole final response, without surrounding white space."""

    text: str
    verdict: Verdict


@dataclass(frozen=True)
class ParsedProof:
    """A generator's answer: the solution, its own evaluation, and the verdict over both (score: s')."""

    solution: str
    self_analysis: str
    verdict: Verdict


def parse_evaluation(answer: str, finish_reason: str) -> ParsedEvaluation:
    """The verifier's format (section 2.1.1)."""
    return _parse_scored(answer, finish_reason, EVALUATION_INTRO, _SCORE_ANCHOR)


def parse_meta_critique(answer: str, finish_reason: str) -> ParsedEvaluation:
    """The meta-verifier's format (appendix A.3)."""
    return _parse_scored(answer, finish_reason, META_INTRO, _META_ANCHOR)


def parse_proof(answer: str, finish_reason: str) -> ParsedProof:
    """The generator's format (appendix A.1): exactly one of each heading: a planted one cannot move the border."""
    text, refused = _final_response(answer, finish_reason)
    if refused is not None:
        return ParsedProof("", "", refused)
    visible = _blank_fences(text)
    solution_at, self_at = _heading_positions(visible, SOLUTION_HEADING), _heading_positions(visible, SELF_HEADING)
    for heading, found in ((SOLUTION_HEADING, solution_at), (SELF_HEADING, self_at)):
        if len(found) != 1:
            return ParsedProof("", "", malformed(f"{len(found)} headings '{heading}' instead of one"))
    if self_at[0] < solution_at[0]:
        return ParsedProof("", "", malformed(f"'{SELF_HEADING}' comes before '{SOLUTION_HEADING}'"))
    solution = text[solution_at[0] + len(SOLUTION_HEADING) : self_at[0]].strip()
    self_from = self_at[0] + len(SELF_HEADING)
    verdict = _read_verdict(visible[self_from:], EVALUATION_INTRO, _SCORE_ANCHOR)
    return ParsedProof(solution, text[self_from:].strip(), verdict if solution else malformed("the solution is empty"))


def malformed(reason: str) -> Verdict:
    """A verdict without a score: the answer is there and breaks the format."""
    return Verdict(outcome="malformed", reason=reason)


def _final_response(answer: str, finish_reason: str) -> tuple[str, Verdict | None]:
    """The final response, and a verdict if it cannot be read at all."""
    text = answer.rpartition("</think>")[2]
    if finish_reason == "length":
        return "", Verdict(outcome="truncated", reason="the answer ran into the token limit")
    if text.lstrip().startswith("<think>"):
        return "", Verdict(outcome="truncated", reason="the thinking never ended")
    if len(text) > MAX_ANSWER_CHARS:
        return "", malformed(f"the final response has {len(text)} characters; at most {MAX_ANSWER_CHARS} are read")
    if sum(1 for _ in islice(_FENCE.finditer(text), MAX_FENCES + 1)) > MAX_FENCES:
        return "", malformed(f"the final response has more than {MAX_FENCES} lines of code fences")
    return text.strip(), None


def _parse_scored(answer: str, finish_reason: str, intro: str, anchor: re.Pattern[str]) -> ParsedEvaluation:
    text, refused = _final_response(answer, finish_reason)
    if refused is not None:
        return ParsedEvaluation("", refused)
    return ParsedEvaluation(text, _read_verdict(_blank_fences(text), intro, anchor))


def _read_verdict(visible: str, intro: str, anchor: re.Pattern[str]) -> Verdict:
    """The verdict over an analysis, given with its closed code fences blanked."""
    anchors = list(anchor.finditer(visible))
    if not anchors:
        return malformed("the phrase before the score is missing")
    if not 0 <= visible.find(intro) < anchors[-1].start():
        return malformed(f"the phrase {intro!r} is missing before the score")
    return _read_score(visible, anchors[-1].end())


def _read_score(text: str, start: int) -> Verdict:
    """The boxed score that follows directly at `start`."""
    box = _BOX.match(text, start)
    if box is None:
        return malformed("no \\boxed{} follows the phrase before the score")
    content = _braced(text, box.end())
    spelled = re.sub(r"\s|\$|\\[,;!]", "", content).replace(r"\tfrac", r"\frac").replace(r"\dfrac", r"\frac")
    text_macro = re.fullmatch(r"\\(?:text|mathbf|mathrm)\{(.*)\}", spelled)
    score = _SPELLINGS.get(text_macro[1] if text_macro else spelled)
    if score is None:
        return malformed(f"the score {content[:_LONGEST_SPELLING]!r} is none of 0, 0.5, 1")
    return Verdict(outcome="valid", score=score)


def _braced(text: str, start: int) -> str:
    """What stands between an opening brace that ends at `start` and its closing one, "" if that is too far off."""
    depth = 1
    for position in range(start, min(start + _LONGEST_SPELLING, len(text))):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start:position]
    return ""


def _heading_positions(text: str, heading: str) -> list[int]:
    """Where the heading stands alone on a line."""
    return [match.start() for match in re.finditer(rf"^{heading}[ \t\r]*$", text, re.MULTILINE)]


class _Fence(NamedTuple):
    """A line of fence marks; only an opening one may have words behind it."""

    start: int
    end: int
    mark: str
    length: int
    can_close: bool


def _blank_fences(text: str) -> str:
    """The text with every closed code fence overwritten by spaces: what stands in one is quoted, not said.

    An unclosed fence hides nothing.
    """
    pieces, done, opened = [], 0, None
    for fence, longest_closer in _fences(text):
        if opened is None:
            opened = fence if longest_closer >= fence.length else None
        elif fence.can_close and fence.mark == opened.mark and fence.length >= opened.length:
            pieces += [text[done : opened.start], _VISIBLE.sub(" ", text[opened.start : fence.end])]
            done, opened = fence.end, None
    return "".join([*pieces, text[done:]])


def _fences(text: str) -> list[tuple[_Fence, int]]:
    """The fences in order, each with the length of the longest later one that could close its kind, or 0."""
    longest, found = {"`": 0, "~": 0}, []
    for match in reversed(list(_FENCE.finditer(text))):
        marks = match[1]
        fence = _Fence(match.start(), match.end(), marks[0], len(marks), not match[2].strip())
        found.append((fence, longest[fence.mark]))
        if fence.can_close and fence.length > longest[fence.mark]:
            longest[fence.mark] = fence.length
    return found[::-1]
