"""Sums of fractions: `Show that 1/2 + 1/3 = 5/6.` A proof is `1/2 + 1/3 = 3/6 + 2/6 = 5/6`.

A proof without a step between sum and result has a gap.
"""

import random
import re
from fractions import Fraction
from itertools import pairwise

from proofloop.method.domains import (
    Checker,
    CritiqueFinding,
    Defect,
    Domain,
    ProofFinding,
    Sample,
    is_in_split,
)
from proofloop.schema.records import Problem, digest

QUESTION = re.compile(r"Show that (\d+/\d+ \+ \d+/\d+) = (\d+/\d+)\.")
CLAIM = re.compile(r"Equality (\d+) (is wrong|skips a step)")
TERM = re.compile(r"\s*(\d{1,9})\s*/\s*([1-9]\d{0,8})\s*", re.ASCII)
GAP = Defect("1", "skips a step")
UNREADABLE = Defect("", "unreadable")


def value_of(side):
    terms = [TERM.fullmatch(term) for term in side[:200].split("+")]
    return sum(Fraction(int(t[1]), int(t[2])) for t in terms) if all(terms) else None


def find_defects(terms, result, proof):
    values = [value_of(side) for side in proof.split("=")]
    if None in values or (values[0], values[-1]) != (value_of(terms), value_of(result)):
        return (UNREADABLE,)
    wrong = [n for n, pair in enumerate(pairwise(values), 1) if pair[0] != pair[1]]
    return tuple(Defect(str(n), "is wrong") for n in wrong) or (GAP,) * (len(values) < 3)


class FractionChecker(Checker):
    def check_proof(self, question, solution):
        if (asked := QUESTION.fullmatch(question.strip())) is None:
            return None
        defects = find_defects(*asked.groups(), solution)
        return ProofFinding(0.5 if defects == (GAP,) else 0.0 if defects else 1.0, defects)

    def check_critique(self, question, solution, analysis):
        if (proof := self.check_proof(question, solution)) is None:
            return None
        claims = tuple(Defect(step, kind) for step, kind in CLAIM.findall(analysis))
        real = [claim in proof.defects for claim in claims]
        quality = 1.0 if all(real) else 0.5 if any(real) else 0.0
        return CritiqueFinding(claims, quality, all(real) and bool(real) == bool(proof.defects))


class Fractions(Domain):
    name = "fractions"
    prompt_pack = "fractions"
    checker = FractionChecker()

    def pose(self, index, *, split, seed):
        dice = random.Random(f"{seed}/{split}/{index}")
        while True:
            a, b, c, d = (dice.randint(1, 9) for _ in range(4))
            result = Fraction(a, b) + Fraction(c, d)
            text = f"Show that {a}/{b} + {c}/{d} = {result.numerator}/{result.denominator}."
            if is_in_split(text, split):
                return Problem(id=f"fractions-{digest(text)}", question=text, source=self.name)

    def sample(self, question):
        return Sample(question[10:-1], "Equality 1 skips a step.", 0.5)
