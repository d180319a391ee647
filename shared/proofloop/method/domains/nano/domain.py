"""Poses nano problems: `nano` of two to six steps, `nano-long` of seven or eight."""

from __future__ import annotations

import random

from proofloop.method.domains.base import Domain, Sample, is_in_split
from proofloop.method.domains.nano.chain import (
    draw_chain,
    parse_question,
    render_proof,
    render_question,
    true_lines,
)
from proofloop.method.domains.nano.checker import (
    NanoChecker,
    find_defects,
    render_analysis,
    score_of,
)
from proofloop.schema.records import Problem, digest

LENGTHS = {"nano": (2, 6), "nano-long": (7, 8)}
"""The fewest and most steps that a domain poses."""


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
