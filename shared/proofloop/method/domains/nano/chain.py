"""A nano problem and its proof: a chain of `+ - *` modulo 10, and one line for each step."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass

MODULUS = 10
LABELS = "abcdefgh"

OPERATORS = "+-*"

MAX_CHARACTERS = 4096
"""A complete proof has at most 110 characters. A longer text is rejected without parsing."""

_QUESTION = re.compile(
    r"Modulo 10, start at (\d)\. ((?:[a-h] [-+*] \d\. ){1,8})Show that the result is (\d)\.",
    flags=re.ASCII,
)
_STEP = re.compile(r"([a-h]) ([-+*]) (\d)\. ", flags=re.ASCII)
_LINE = re.compile(r"\s*([a-z])\s+(\d)\s*([-+*])\s*(\d)\s*=\s*(\d)\s*", flags=re.ASCII)


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


def calculate(value: int, operator: str, operand: int) -> int:
    """One operation modulo 10."""
    if operator == "+":
        return (value + operand) % MODULUS
    if operator == "-":
        return (value - operand) % MODULUS
    return value * operand % MODULUS


def render_question(chain: Chain) -> str:
    steps = " ".join(f"{step.label} {step.operator} {step.operand}." for step in chain.steps)
    return f"Modulo 10, start at {chain.start}. {steps} Show that the result is {chain.result}."


def render_proof(lines: Iterable[Line]) -> str:
    return "\n".join(
        f"{line.label} {line.value} {line.operator} {line.operand} = {line.result}"
        for line in lines
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


def draw_chain(rng: random.Random, fewest: int, most: int) -> Chain:
    """A random chain. All lengths from `fewest` to `most` are equally likely; operands are 1 to
    9.
    """
    labels = LABELS[: rng.randint(fewest, most)]
    steps = tuple(Step(label, rng.choice(OPERATORS), rng.randint(1, 9)) for label in labels)
    return Chain(rng.randrange(MODULUS), steps)
