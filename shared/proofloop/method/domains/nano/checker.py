"""The exact checker of nano: the defects of a proof, and the quality of an analysis.

The checker judges a line by the result that the line before it *states*: an error that later lines
carry on is one defect. A claim about a missing step shows the missing line and, if the next step
exists, that step's label and value, which lets a reader check the value:
`Step a is missing: 7 + 3 = 0, then b 5.`
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from proofloop.method.domains.base import Checker, CritiqueFinding, Defect, ProofFinding
from proofloop.method.domains.nano.chain import (
    MAX_CHARACTERS,
    Chain,
    Line,
    Step,
    calculate,
    parse_proof,
    parse_question,
)
from proofloop.schema.records import Score

FLAW_KINDS = ("miscalculated", "miscopied", "missing")
UNREADABLE = Defect(step="", kind="unreadable")
NO_ISSUE = "No issue was found."

_CLAIM = re.compile(
    r"Step\s+([a-z])\s+is\s+(?:(miscalculated|miscopied)|missing:\s+(\d)\s*([-+*])\s*(\d)\s*=\s*(\d)(?:,\s+then\s+([a-z])\s+(\d))?)\.",
    flags=re.ASCII,
)
_SCORE = re.compile(r"\\boxed\{\s*(0|0\.5|1)\s*\}")
_FRAME = (
    "Here is my evaluation of the solution:",
    "Based on my evaluation, the final overall score should be:",
)


@dataclass(frozen=True)
class Analysis:
    """A parsed analysis; `score` is None if the text has none."""

    claims: tuple[Defect, ...]
    score: Score | None
    well_expressed: bool


def score_of(defects: Iterable[Defect]) -> Score:
    """The score that follows from the defects: 1 for none, 0.5 for a single omission, 0
    otherwise.
    """
    kinds = [defect.kind for defect in defects]
    if not kinds:
        return 1.0
    return 0.5 if kinds == ["missing"] else 0.0


def render_analysis(defects: Iterable[Defect]) -> str:
    """The lines of an analysis that names these defects, without its frame and score."""
    return "\n".join(_render_claim(defect) for defect in defects) or NO_ISSUE


def _render_claim(defect: Defect) -> str:
    detail = f": {defect.detail}" if defect.detail else ""
    return f"Step {defect.step} is {defect.kind}{detail}."


def omission(line: Line, after: tuple[str, int] | None = None) -> Defect:
    """The defect of a proof that lacks this line. `after`: label and value of the next line, if the
    proof has it.
    """
    then = f", then {after[0]} {after[1]}" if after else ""
    return Defect(
        line.label, "missing", f"{line.value} {line.operator} {line.operand} = {line.result}{then}"
    )


def parse_analysis(analysis: str) -> Analysis:
    """Read an analysis with or without its frame and score. A line that is not a claim makes the
    analysis badly expressed.
    """
    if len(analysis) > MAX_CHARACTERS:
        return Analysis((), None, False)
    texts = [text.strip() for text in analysis.splitlines() if text.strip()]
    scores = [match[1] for text in texts if (match := _SCORE.fullmatch(text))]
    body = [text for text in texts if not text.startswith(_FRAME) and not _SCORE.fullmatch(text)]
    matches = [_CLAIM.fullmatch(text) for text in body]
    claims = tuple(dict.fromkeys(_as_claim(match) for match in matches if match))
    well_expressed = body == [NO_ISSUE] or (all(matches) and len(claims) == len(body) in (1, 2))
    return Analysis(claims, _as_score(scores[-1]) if scores else None, well_expressed)


def find_defects(chain: Chain, lines: Iterable[Line]) -> tuple[Defect, ...]:
    """Every defect of a readable proof, in the order of its lines."""
    defects: list[Defect] = []
    waiting = list(chain.steps)
    value = chain.start
    for line in lines:
        if line.label not in [step.label for step in waiting]:
            # Repeated, out of order, or not a step of the problem.
            defects.append(Defect(line.label, "miscopied"))
            continue
        while (step := waiting.pop(0)).label != line.label:
            is_next = waiting[0].label == line.label
            defects.append(
                omission(step.line(value), (line.label, line.value) if is_next else None)
            )
            value = step.apply(value)
        defects.extend(_line_defects(step, value, line))
        value = line.result
    for step in waiting:
        defects.append(omission(step.line(value)))
        value = step.apply(value)
    return tuple(defects)


def _line_defects(step: Step, value: int, line: Line) -> Iterable[Defect]:
    if (line.value, line.operator, line.operand) != (value, step.operator, step.operand):
        yield Defect(line.label, "miscopied")
    if line.result != calculate(line.value, line.operator, line.operand):
        yield Defect(line.label, "miscalculated")


def _as_claim(match: re.Match[str]) -> Defect:
    label, kind, value, operator, operand, result, next_label, next_value = match.groups()
    if kind:
        return Defect(label, kind)
    after = (next_label, int(next_value)) if next_label else None
    return omission(Line(label, int(value), operator, int(operand), int(result)), after)


def _as_score(text: str) -> Score:
    return {"0": 0.0, "0.5": 0.5, "1": 1.0}[text]


def check_proof(question: str, solution: str) -> ProofFinding:
    """The true score of a proof and its defects; an unreadable proof has score 0. Raises
    LookupError for a question of another domain.
    """
    chain = parse_question(question)
    lines = parse_proof(solution)
    if lines is None:
        return ProofFinding(0.0, (UNREADABLE,))
    defects = find_defects(chain, lines)
    return ProofFinding(score_of(defects), defects)


def check_critique(question: str, solution: str, analysis: str) -> CritiqueFinding:
    """Apply the meta-verifier's rubric exactly. The analysis may have its frame and score or not.
    Raises LookupError for a question of another domain.
    """
    real = check_proof(question, solution).defects
    read = parse_analysis(analysis)
    found = [claim in real for claim in read.claims]
    sound = read.well_expressed and read.score in (None, score_of(read.claims))
    quality: Score = 1.0 if all(found) else 0.5 if any(found) else 0.0
    faithful = read.well_expressed and all(found) and bool(found) == bool(real)
    return CritiqueFinding(read.claims, quality if sound else min(quality, 0.5), faithful)


class NanoChecker(Checker):
    """Checks the problems of both nano domains."""

    def check_proof(self, question: str, solution: str) -> ProofFinding | None:
        with suppress(LookupError):
            return check_proof(question, solution)
        return None

    def check_critique(self, question: str, solution: str, analysis: str) -> CritiqueFinding | None:
        with suppress(LookupError):
            return check_critique(question, solution, analysis)
        return None
