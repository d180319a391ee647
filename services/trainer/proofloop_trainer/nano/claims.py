"""Claims of verifiers about flaws, real and false, and what is wrong in a false one.

A false claim here agrees with itself, as where a verifier miscalculates: only the proof tells that it is false.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace

from proofloop.domains.base import Defect
from proofloop.domains.nano import FLAW_KINDS, LABELS, Chain, Line, calculate, find_defects, omission, true_lines
from proofloop_trainer.nano.flaws import another_digit

FALSE_ALARM, OVERLOOKED, WRONG_STEP, WRONG_KIND = 0.14, 0.11, 0.12, 0.06  # of critiques
WRONG_LINE = 0.08  # share of omissions named with another line than the one that is missing
NO_SUCH_STEP, SAID_TWICE = 0.08, 0.06  # shares of invented claims about a step of no problem; of repeated claims
ABOUT_A_FLAW, MISSTATED = 0.8, 0.8
"""Of false claims, those about a flaw that is there; of these, where a step is missing, those with a wrong line."""
WRONG_VALUE, WRONG_OPERAND, WRONG_RESULT, WRONG_NEXT = 0.4, 0.1, 0.05, 0.45
"""What is wrong in such a line. With another value or operand the result is that of the wrong line."""
IGNORED = -100
ClaimMarks = tuple[int, ...]  # of label, value, operator, operand, result of a line said to be missing; next value


def imperfect_claims(rng: random.Random, chain: Chain, lines: Sequence[Line]) -> tuple[Defect, ...]:
    """What a hurried verifier names: mostly the real defects (the first two), sometimes none or others."""
    defects = find_defects(chain, lines)
    if not defects:
        return (invent(rng, chain, lines),) if rng.random() < FALSE_ALARM else ()
    draw, first = rng.random(), defects[0]
    if draw < OVERLOOKED:
        return ()
    if draw < OVERLOOKED + WRONG_STEP:
        label = rng.choice([step.label for step in chain.steps if step.label != first.step])
        return (_claim(chain, lines, label, first.kind),)
    if draw < OVERLOOKED + WRONG_STEP + WRONG_KIND:
        return (_claim(chain, lines, first.step, rng.choice([kind for kind in FLAW_KINDS if kind != first.kind])),)
    return tuple(misstate(rng, claim) if rng.random() < WRONG_LINE else claim for claim in defects[:2])


def partly_real(
    rng: random.Random, chain: Chain, lines: Sequence[Line], defects: Sequence[Defect], real_share: float
) -> tuple[Defect, ...]:
    """No, one or two claims, of which this share is real where there is something to find."""
    remaining, claims = list(defects), list[Defect]()
    for _ in range(rng.choices((0, 1, 2), (0.1, 0.55, 0.35))[0]):
        is_real = bool(remaining) and rng.random() < real_share
        claim = remaining.pop(0) if is_real else near_miss(rng, chain, lines, defects)
        if claim not in claims:
            claims.append(claim)
    if len(claims) == 1 and rng.random() < SAID_TWICE:
        claims *= 2
    return tuple(claims)


def near_miss(rng: random.Random, chain: Chain, lines: Sequence[Line], defects: Sequence[Defect]) -> Defect:
    """A false claim, mostly about a flaw that is there: with a wrong line, or of another kind or the step beside."""
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
    """An omission shown with another line, wrong as `WRONG_VALUE` and the others say; any other claim stays."""
    places = [place for place, character in enumerate(claim.detail) if character.isdigit()]
    if not places:
        return claim
    text, (value, operand, result, *_) = list(claim.detail), places
    shares = (WRONG_VALUE, WRONG_OPERAND, WRONG_RESULT, WRONG_NEXT)[: len(places)]
    wrong = rng.choices(places, shares)[0]
    text[wrong] = str(another_digit(rng, int(text[wrong])))
    if wrong in (value, operand):
        text[result] = str(calculate(int(text[value]), text[value + 2], int(text[operand])))
    return replace(claim, detail="".join(text))


def mark_claims(claims: Sequence[Defect], defects: Sequence[Defect]) -> tuple[ClaimMarks, ...]:
    """For each claim of an omission, which of its fields is wrong, by the number (from 1) of the step; 0 where right.

    Of a step that is not missing the label is wrong, and nothing is said of the rest.
    """
    missing = {defect.step: _fields(defect) for defect in defects if defect.kind == "missing"}
    marks = list[ClaimMarks]()
    for claim in claims:
        if claim.kind != "missing":
            continue
        shown, at_fault = _fields(claim), 1 + LABELS.index(claim.step)
        if claim.step in missing:
            right = [*missing[claim.step], ""]  # where nothing is gone on with, a claim of it is wrong
            marks.append((0, *(at_fault * (field != true) for field, true in zip(shown, right, strict=False))))
        else:
            marks.append((at_fault, *(IGNORED for _ in shown)))
    return tuple(marks)


def invent(rng: random.Random, chain: Chain, lines: Sequence[Line]) -> Defect:
    """A claim about any step, of any kind; it may happen to be real."""
    labels = LABELS if rng.random() < NO_SUCH_STEP else [step.label for step in chain.steps]
    return _claim(chain, lines, rng.choice(labels), rng.choice(FLAW_KINDS))


def _claim(chain: Chain, lines: Sequence[Line], label: str, kind: str) -> Defect:
    """A claim in its wording: an omission shows lines of the proof, or right ones; of no such step the last one."""
    if kind != "missing":
        return Defect(label, kind)
    shown = {line.label: line for line in (*true_lines(chain), *lines)}
    last = chain.steps[-1].label
    after = shown.get(LABELS[LABELS.index(label) + 1]) if label < last else None
    line = replace(shown[min(label, last)], label=label)
    return omission(line, (after.label, after.value) if after else None)


def _fields(claim: Defect) -> list[str]:
    """Value, operator, operand and result that an omission shows, and the value that is gone on with, if it is."""
    return re.findall(r"[-+*]|\d", claim.detail)
