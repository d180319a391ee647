"""Writes proofs with flaws of all kinds. A generator soon exploits a kind that its verifier has
never seen.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from proofloop.method.domains.nano import (
    FLAW_KINDS,
    LABELS,
    MODULUS,
    OPERATORS,
    Chain,
    Line,
    calculate,
    true_lines,
)

ODD_ORDER, GAP = 0.06, 0.08  # shares of flawed proofs
LineMarks = tuple[int, ...]  # of a line's label, value, operator, operand and result


@dataclass(frozen=True)
class Habits:
    """The habits of a proof's author, as shares."""

    second_flaw: float = 0.2  # of flawed proofs: those with a second flaw
    lost_carry: float = 0.5  # of missing steps: those before a wrong value


ORDINARY = Habits()


def write_proof(
    rng: random.Random, chain: Chain, flawed_share: float, habits: Habits = ORDINARY
) -> tuple[Line, ...]:
    """A random proof that is flawed with the probability `flawed_share`."""
    if rng.random() >= flawed_share:
        return true_lines(chain)
    draw = rng.random()
    if draw < ODD_ORDER:
        return _disorder(rng, list(true_lines(chain)))
    if draw < ODD_ORDER + GAP:
        return lines_with_flaws(rng, chain, gap(rng, chain), habits.lost_carry)
    count = 2 if rng.random() < habits.second_flaw else 1
    labels = rng.sample([step.label for step in chain.steps], count)
    return lines_with_flaws(
        rng, chain, {label: rng.choice(FLAW_KINDS) for label in labels}, habits.lost_carry
    )


def lines_with_flaws(
    rng: random.Random, chain: Chain, flaws: dict[str, str], lost_carry: float
) -> tuple[Line, ...]:
    """The proof with these flaws by step label. A line's stated result is carried on, right or
    wrong.
    """
    lines: list[Line] = []
    value = chain.start
    for step in chain.steps:
        line = step.line(value)
        flaw = flaws.get(step.label)
        if flaw == "miscalculated":
            line = replace(line, result=another_digit(rng, line.result))
        elif flaw == "miscopied":
            line = _miscopy(rng, line)
        if flaw != "missing":
            lines.append(line)
        lost = flaw == "missing" and rng.random() < lost_carry
        value = another_digit(rng, line.result) if lost else line.result
    return tuple(lines)


def gap(rng: random.Random, chain: Chain) -> dict[str, str]:
    """Two or more missing steps in a row, but never all. Generators that avoid work write such
    proofs.
    """
    length = rng.randint(min(2, len(chain.steps) - 1), len(chain.steps) - 1)
    start = rng.randint(0, len(chain.steps) - length)
    return {step.label: "missing" for step in chain.steps[start : start + length]}


def mark_lines(chain: Chain, lines: Sequence[Line]) -> tuple[LineMarks, ...]:
    """The marks of each line: for a wrong field the number (from 1) of the step at fault, for a
    right one 0.

    A label is wrong if it is not the next one; the step at fault is then the missing or the
    repeated one.
    """
    marks: list[LineMarks] = []
    value = chain.start
    place = 0
    for line in lines:
        index = LABELS.index(line.label)
        for step in chain.steps[place:index]:
            value = step.apply(value)
        step = chain.steps[index]
        right = calculate(line.value, line.operator, line.operand)
        copied = (line.value != value, line.operator != step.operator, line.operand != step.operand)
        at_fault = 1 + min(place, index) if index != place else 0
        marks.append(
            (at_fault, *((1 + index) * is_wrong for is_wrong in (*copied, line.result != right)))
        )
        value = line.result
        place = index + 1
    return tuple(marks)


def _miscopy(rng: random.Random, line: Line) -> Line:
    field = rng.choice(("value", "operator", "operand"))
    if field == "operator":
        others = [operator for operator in OPERATORS if operator != line.operator]
        line = replace(line, operator=rng.choice(others))
    elif field == "operand":
        line = replace(line, operand=another_digit(rng, line.operand))
    else:
        line = replace(line, value=another_digit(rng, line.value))
    return replace(line, result=calculate(line.value, line.operator, line.operand))


def _disorder(rng: random.Random, lines: list[Line]) -> tuple[Line, ...]:
    """Repeat a line, or exchange two."""
    place = rng.randrange(len(lines) - 1)
    if rng.random() < 0.5:
        lines.insert(place + 1, lines[place])
    else:
        lines[place], lines[place + 1] = lines[place + 1], lines[place]
    return tuple(lines)


def another_digit(rng: random.Random, digit: int) -> int:
    """Any digit but this one."""
    return (digit + rng.randrange(1, MODULUS)) % MODULUS
