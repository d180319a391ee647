"""Generates claims about flaws, real and false, and marks the wrong fields of false ones.

A false claim is consistent in itself, as if a verifier miscalculated: only the proof shows that it
is false.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace

from proofloop.method.domains.base import Defect
from proofloop.method.domains.nano import (
    FLAW_KINDS,
    LABELS,
    Chain,
    Line,
    calculate,
    find_defects,
    omission,
    true_lines,
)
from proofloop_trainer.nano.flaws import another_digit

FALSE_ALARM, OVERLOOKED, WRONG_STEP, WRONG_KIND = 0.14, 0.11, 0.12, 0.06  # shares of critiques
WRONG_LINE = 0.08  # share of claimed omissions that show a wrong line
NO_SUCH_STEP = 0.08  # share of invented claims about a step that the problem does not have
REPEATED = 0.06  # share of single claims that are repeated
ABOUT_A_FLAW = 0.8  # share of false claims about a real flaw
MISSTATED = 0.8  # share of those about a missing step that show a wrong line
WRONG_VALUE, WRONG_OPERAND, WRONG_RESULT, WRONG_NEXT = 0.4, 0.1, 0.05, 0.45
"""Shares of the wrong field in such a line. With a wrong value or operand, the result follows from
the wrong line.
"""
IGNORED = -100
ClaimMarks = tuple[int, ...]
"""The marks of a claimed omission's label, value, operator, operand, result and next value."""


def imperfect_claims(rng: random.Random, chain: Chain, lines: Sequence[Line]) -> tuple[Defect, ...]:
    """The claims of an imperfect verifier: mostly the first two real defects, sometimes none or
    wrong ones.
    """
    defects = find_defects(chain, lines)
    if not defects:
        return (invent(rng, chain, lines),) if rng.random() < FALSE_ALARM else ()
    draw = rng.random()
    first = defects[0]
    if draw < OVERLOOKED:
        return ()
    if draw < OVERLOOKED + WRONG_STEP:
        label = rng.choice([step.label for step in chain.steps if step.label != first.step])
        return (_claim(chain, lines, label, first.kind),)
    if draw < OVERLOOKED + WRONG_STEP + WRONG_KIND:
        others = [kind for kind in FLAW_KINDS if kind != first.kind]
        return (_claim(chain, lines, first.step, rng.choice(others)),)
    return tuple(
        misstate(rng, claim) if rng.random() < WRONG_LINE else claim for claim in defects[:2]
    )


def partly_real(
    rng: random.Random,
    chain: Chain,
    lines: Sequence[Line],
    defects: Sequence[Defect],
    real_share: float,
) -> tuple[Defect, ...]:
    """Up to two claims; with the probability `real_share`, a claim is real as long as there are
    defects left.
    """
    remaining = list(defects)
    claims: list[Defect] = []
    for _ in range(rng.choices((0, 1, 2), (0.1, 0.55, 0.35))[0]):
        is_real = bool(remaining) and rng.random() < real_share
        claim = remaining.pop(0) if is_real else near_miss(rng, chain, lines, defects)
        if claim not in claims:
            claims.append(claim)
    if len(claims) == 1 and rng.random() < REPEATED:
        claims *= 2
    return tuple(claims)


def near_miss(
    rng: random.Random, chain: Chain, lines: Sequence[Line], defects: Sequence[Defect]
) -> Defect:
    """A false claim, mostly about a real flaw with a wrong line, kind or neighboring step."""
    claim = invent(rng, chain, lines)
    if defects and rng.random() < ABOUT_A_FLAW:
        defect = rng.choice([defect for defect in defects[:2] if defect.detail] or defects)
        if defect.detail and rng.random() < MISSTATED:
            claim = misstate(rng, defect)
        elif rng.random() < 0.5:
            claim = _claim(chain, lines, defect.step, claim.kind)
        else:
            places = [LABELS.index(defect.step) + way for way in (-1, 1)]
            claim = _claim(chain, lines, LABELS[rng.choice(places) % len(chain.steps)], defect.kind)
    return claim if claim not in defects else near_miss(rng, chain, lines, defects)


def misstate(rng: random.Random, claim: Defect) -> Defect:
    """A claimed omission with one wrong field, drawn by `WRONG_VALUE` and the other shares; other
    claims unchanged.
    """
    places = [place for place, character in enumerate(claim.detail) if character.isdigit()]
    if not places:
        return claim
    text = list(claim.detail)
    value, operand, result, *_ = places
    shares = (WRONG_VALUE, WRONG_OPERAND, WRONG_RESULT, WRONG_NEXT)[: len(places)]
    wrong = rng.choices(places, shares)[0]
    text[wrong] = str(another_digit(rng, int(text[wrong])))
    if wrong in (value, operand):
        text[result] = str(calculate(int(text[value]), text[value + 2], int(text[operand])))
    return replace(claim, detail="".join(text))


def mark_claims(claims: Sequence[Defect], defects: Sequence[Defect]) -> tuple[ClaimMarks, ...]:
    """The marks of each claimed omission: for a wrong field the number (from 1) of the step, for a
    right one 0.

    If the step is not missing, the label is wrong and the other fields are IGNORED.
    """
    missing = {defect.step: _fields(defect) for defect in defects if defect.kind == "missing"}
    marks = list[ClaimMarks]()
    for claim in claims:
        if claim.kind != "missing":
            continue
        shown = _fields(claim)
        at_fault = 1 + LABELS.index(claim.step)
        if claim.step in missing:
            # If the proof ends there, a claimed next value is wrong.
            right = [*missing[claim.step], ""]
            pairs = zip(shown, right, strict=False)
            marks.append((0, *(at_fault * (field != true) for field, true in pairs)))
        else:
            marks.append((at_fault, *(IGNORED for _ in shown)))
    return tuple(marks)


def invent(rng: random.Random, chain: Chain, lines: Sequence[Line]) -> Defect:
    """A random claim about any step and kind, which may happen to be real."""
    labels = LABELS if rng.random() < NO_SUCH_STEP else [step.label for step in chain.steps]
    return _claim(chain, lines, rng.choice(labels), rng.choice(FLAW_KINDS))


def _claim(chain: Chain, lines: Sequence[Line], label: str, kind: str) -> Defect:
    """A claim with its detail. An omission shows the proof's line or the right one; if the problem
    does not have the step, the last line.
    """
    if kind != "missing":
        return Defect(label, kind)
    shown = {line.label: line for line in (*true_lines(chain), *lines)}
    last = chain.steps[-1].label
    after = shown.get(LABELS[LABELS.index(label) + 1]) if label < last else None
    line = replace(shown[min(label, last)], label=label)
    return omission(line, (after.label, after.value) if after else None)


def _fields(claim: Defect) -> list[str]:
    """The value, operator, operand and result of a claimed omission, and the next value if it shows
    one.
    """
    return re.findall(r"[-+*]|\d", claim.detail)
