"""The predictions of the judges for each proof from its first critiques, in two ways that are
compared.

`verifier`: the critiques alone. The score is that of most critiques, the strength their mean.
`meta_verified`: the score is the label of section 2.3, and in the strength an issue counts only if
the meta-verifier confirms it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from proofloop.judging.rows import JudgedProof
from proofloop.method.acceptance import Strength, judged_mean, majority, mean, quorum, rules
from proofloop.schema.records import Score

VERIFIER, META_VERIFIED = "verifier", "meta_verified"


@dataclass(frozen=True)
class Prediction:
    """`score`: 0, 0.5 or 1, None if undecided. `strength` in [0, 1]: how far the judges trust the
    proof, None if no critique was readable. `gives_points`: the verifier's scale is finer.
    """

    problem: str
    truth: Score
    grade: float
    score: float | None
    strength: float | None
    gives_points: bool = False

    @property
    def error(self) -> float | None:
        """Score minus truth, or the share of full marks minus people's; None if there is none."""
        if self.gives_points:
            return None if self.strength is None else self.strength - self.grade
        return None if self.score is None else self.score - self.truth

    @property
    def is_right(self) -> bool:
        return self.truth == 1.0

    @property
    def is_accepted(self) -> bool:
        return self.score == 1.0


Way = tuple[Strength, Strength]
"""How critiques become a score, and a strength."""


def ways(k: int, *, has_meta: bool) -> Mapping[str, Way]:
    """The ways to compare: the meta-verified one only where critiques were judged."""
    found: dict[str, Way] = {VERIFIER: (majority, mean)}
    if has_meta:
        found[META_VERIFIED] = (lambda judged: quorum(judged, k), judged_mean)
    return found


class Predictions:
    """The predictions of a run's rows with n critiques and fewer, and their strengths by acceptance
    rule. `add` makes those of a row, once, while the run still works.
    """

    def __init__(self, *, n: int, k: int, has_meta: bool) -> None:
        self.n = n
        self.rules = rules(k, has_meta=has_meta)
        self.ways = ways(k, has_meta=has_meta)
        self.counts = counts(n)
        self._made: dict[str, Mapping[tuple[str, int], Prediction]] = {}
        self._strengths: dict[str, Mapping[str, float | None]] = {}

    def add(self, row: JudgedProof) -> None:
        self._made[row.proof] = {
            (name, critiques): predict(row, way, critiques)
            for name, way in self.ways.items()
            for critiques in self.counts
        }
        self._strengths[row.proof] = {
            rule: strength(row.judgements) for rule, strength in self.rules.items()
        }

    def of(
        self, rows: Sequence[JudgedProof], way: str, critiques: int | None = None
    ) -> list[Prediction]:
        """The rows' predictions in one way, by this many critiques or all n."""
        self._add_missing(rows)
        return [self._made[row.proof][way, critiques or self.n] for row in rows]

    def strengths(self, rows: Sequence[JudgedProof], rule: str) -> list[float | None]:
        """The rows' strengths by an acceptance rule."""
        self._add_missing(rows)
        return [self._strengths[row.proof][rule] for row in rows]

    def _add_missing(self, rows: Sequence[JudgedProof]) -> None:
        for row in rows:
            if row.proof not in self._made:
                self.add(row)


def counts(n: int) -> list[int]:
    """The numbers of critiques that are compared: 1, 2, 3, 4, 6, 8, 12, 16 ... and n."""
    powers = [2**power for power in range(n.bit_length())]
    return sorted({n, *(size for power in powers for size in (power, 3 * power) if size <= n)})


def predict(row: JudgedProof, way: Way, critiques: int) -> Prediction:
    """The predictions of a proof by its first `critiques`."""
    judged = row.judgements[:critiques]
    score_of, strength_of = way
    gives_points = any(each.verdict.share is not None for each in judged)
    score, strength = score_of(judged), strength_of(judged)
    return Prediction(row.problem, row.truth, row.grade, score, strength, gives_points)
