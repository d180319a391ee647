"""The nano domain: chains of `+ - *` modulo 10, small enough for a CPU, with an exact checker.

A question reads `Modulo 10, start at 7. a + 3. b * 4. Show that the result is 0.` and its proof has
one line per step, `a 7 + 3 = 0`. The checker judges a line by the result that the line before it
*states*: an error that later lines carry on is one defect. A claim about a missing step shows the
missing line and, if the next step exists, that step's label and value, which lets a reader check
the value: `Step a is missing: 7 + 3 = 0, then b 5.` `nano` poses two to six steps. `nano-long`
poses seven or eight, to test on longer problems than those of the training.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from proofloop.method.domains.base import (
    Checker,
    CritiqueFinding,
    Defect,
    Domain,
    ProofFinding,
    Sample,
    is_in_split,
)
from proofloop.schema.records import Problem, Score, digest

MODULUS = 10
LABELS = "abcdefgh"
LENGTHS = {"nano": (2, 6), "nano-long": (7, 8)}  # fewest and most steps that a domain poses
OPERATORS = "+-*"
FLAW_KINDS = ("miscalculated", "miscopied", "missing")
UNREADABLE = Defect(step="", kind="unreadable")
NO_ISSUE = "No issue was found."
MAX_CHARACTERS = 4096  # a complete proof has at most 110; a longer text is rejected without parsing

_QUESTION = re.compile(
    r"Modulo 10, start at (\d)\. ((?:[a-h] [-+*] \d\. ){1,8})Show that the result is (\d)\.",
    flags=re.ASCII,
)
_STEP = re.compile(r"([a-h]) ([-+*]) (\d)\. ", flags=re.ASCII)
_LINE = re.compile(r"\s*([a-z])\s+(\d)\s*([-+*])\s*(\d)\s*=\s*(\d)\s*", flags=re.ASCII)
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
class Step:
    """One operation of a problem."""

    label: str
    operator: str
    operand: int

    def apply(self, value: int) -> int:
        return calculate(value, self.operator, self.operand)

    def line(self, value: int) -> Line:
        """The proof's line for this step, applied to `value`."""
        return Line(self.label, value, self.operator, self.operand, self.apply(value))


@dataclass(frozen=True)
class Chain:
    """A parsed problem."""

    start: int
    steps: tuple[Step, ...]

    @property
    def result(self) -> int:
        value = self.start
        for step in self.steps:
            value = step.apply(value)
        return value


@dataclass(frozen=True)
class Line:
    """One line of a proof: the value carried over, the operation, and the stated result."""

    label: str
    value: int
    operator: str
    operand: int
    result: int


@dataclass(frozen=True)
class Analysis:
    """A parsed analysis; `score` is None if the text has none."""

    claims: tuple[Defect, ...]
    score: Score | None
    well_expressed: bool


def calculate(value: int, operator: str, operand: int) -> int:
    """One operation modulo 10."""
    if operator == "+":
        return (value + operand) % MODULUS
    if operator == "-":
        return (value - operand) % MODULUS
    return value * operand % MODULUS


def score_of(defects: Iterable[Defect]) -> Score:
    """The score that follows from the defects: 1 for none, 0.5 for a single omission, 0
    otherwise.
    """
    kinds = [defect.kind for defect in defects]
    if not kinds:
        return 1.0
    return 0.5 if kinds == ["missing"] else 0.0


def render_question(chain: Chain) -> str:
    steps = " ".join(f"{step.label} {step.operator} {step.operand}." for step in chain.steps)
    return f"Modulo 10, start at {chain.start}. {steps} Show that the result is {chain.result}."


def render_proof(lines: Iterable[Line]) -> str:
    return "\n".join(
        f"{line.label} {line.value} {line.operator} {line.operand} = {line.result}"
        for line in lines
    )


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


def true_lines(chain: Chain) -> tuple[Line, ...]:
    """The complete and correct proof."""
    lines = []
    value = chain.start
    for step in chain.steps:
        lines.append(step.line(value))
        value = lines[-1].result
    return tuple(lines)


def parse_question(question: str) -> Chain:
    """Read a question. Raises LookupError for one that is not of this domain."""
    match = (
        _QUESTION.fullmatch(" ".join(question.split())) if len(question) <= MAX_CHARACTERS else None
    )
    if match is None:
        raise LookupError("not a nano question: the exact checker cannot read it")
    steps = tuple(
        Step(label, operator, int(operand)) for label, operator, operand in _STEP.findall(match[2])
    )
    chain = Chain(int(match[1]), steps)
    if (
        chain.result != int(match[3])
        or "".join(step.label for step in steps) != LABELS[: len(steps)]
    ):
        raise LookupError("not a nano question: its result or its step labels are wrong")
    return chain


def parse_proof(solution: str) -> tuple[Line, ...] | None:
    """Read the lines of a proof; None if any cannot be read."""
    if len(solution) > MAX_CHARACTERS:
        return None
    matches = [_LINE.fullmatch(text) for text in solution.strip().splitlines() if text.strip()]
    if not all(matches):
        return None
    return tuple(Line(m[1], int(m[2]), m[3], int(m[4]), int(m[5])) for m in matches if m)


def parse_analysis(analysis: str) -> Analysis:
    """Read an analysis with or without its frame and score. A line that is not a claim makes it
    badly expressed.
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


class NanoDomain(Domain):
    """The nano domains, `nano` and `nano-long`."""

    prompt_pack = "nano"
    checker = NanoChecker()

    def __init__(self, name: str = "nano") -> None:
        self.name = name
        self._lengths = LENGTHS[name]

    def pose(self, index: int, *, split: str, seed: int) -> Problem:
        """Draw problems until one belongs to the split."""
        rng = random.Random(f"{self.name}/{seed}/{split}/{index}")
        while True:
            chain = draw_chain(rng, *self._lengths)
            question = render_question(chain)
            if is_in_split(question, split):
                name = f"nano-{digest(question)}"
                return Problem(
                    id=name, question=question, answer=str(chain.result), source=self.name
                )

    def sample(self, question: str) -> Sample:
        """The correct proof without its last line, and the analysis that names the omission."""
        chain = parse_question(question)
        lines = true_lines(chain)[:-1]
        defects = find_defects(chain, lines)
        return Sample(render_proof(lines), render_analysis(defects), score_of(defects))


def draw_chain(rng: random.Random, fewest: int, most: int) -> Chain:
    """A random chain. All lengths from `fewest` to `most` are equally likely; operands are 1 to
    9.
    """
    labels = LABELS[: rng.randint(fewest, most)]
    steps = tuple(Step(label, rng.choice(OPERATORS), rng.randint(1, 9)) for label in labels)
    return Chain(rng.randrange(MODULUS), steps)
