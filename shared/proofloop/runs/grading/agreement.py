"""Agreement between two raters: confusion table, Cohen's kappa and its weighted form.

kappa = 1 - sum(w * observed) / sum(w * expected), where w is 1 for unequal scores (Cohen 1960), or
their squared distance (quadratic weights, Cohen 1968), as in `proofloop judge`. It is undefined for
two raters who gave one and the same score to all. These lines keep scikit-learn's 275 MB out of the
labeler's image; a test compares them with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations, groupby
from typing import Any

from proofloop.runs.grading.history import standing
from proofloop.schema.records import Grade, Score

SCORES: tuple[Score, ...] = (1.0, 0.5, 0.0)


@dataclass(frozen=True)
class Agreement:
    """The scores that two raters gave to the same cases."""

    first: str
    second: str
    pairs: Counter[tuple[Score, Score]]

    @property
    def cases(self) -> int:
        return self.pairs.total()

    @property
    def equal(self) -> int:
        return sum(count for (one, other), count in self.pairs.items() if one == other)

    @property
    def kappa(self) -> float | None:
        return self._kappa(lambda one, other: float(one != other))

    @property
    def weighted_kappa(self) -> float | None:
        return self._kappa(lambda one, other: (one - other) ** 2)

    @property
    def confusion(self) -> list[list[int]]:
        """A row for each score of the first rater, a column for each of the second: 1, 0.5, 0."""
        return [[self.pairs[one, other] for other in SCORES] for one in SCORES]

    def _kappa(self, weight: Callable[[Score, Score], float]) -> float | None:
        firsts, seconds = Counter[Score](), Counter[Score]()
        for (one, other), count in self.pairs.items():
            firsts[one] += count
            seconds[other] += count
        observed = sum(weight(*pair) * count for pair, count in self.pairs.items())
        expected = sum(
            weight(one, other) * firsts[one] * seconds[other] for one in firsts for other in seconds
        )
        return 1 - self.cases * observed / expected if expected else None


LABELS = "labels"
"""The second rater where people's grades are compared with the labels of the same proofs."""


def agreements(grades: Iterable[Grade]) -> list[Agreement]:
    """The agreement of each two people who graded the same proofs or analyses, and of each person
    with the labels that they checked. `grades` are ordered by proof and analysis.

    A person's grade is the last one that was given blind: later ones may follow the other person.
    """
    found: dict[tuple[str, str], Counter[tuple[Score, Score]]] = {}
    for _, of_proof in groupby(grades, key=lambda grade: (grade.proof_id, grade.critique)):
        blind = [grade for grade in of_proof if grade.is_blind and not grade.settles]
        for names, pair in _pairs(standing(blind)):
            found.setdefault(names, Counter())[pair] += 1
    return [Agreement(*names, pairs) for names, pairs in sorted(found.items())]


def _pairs(of_proof: dict[str, Grade]) -> Iterable[tuple[tuple[str, str], tuple[Any, Any]]]:
    for one, other in combinations(sorted(of_proof), 2):
        yield (one, other), (of_proof[one].score, of_proof[other].score)
    for by, grade in of_proof.items():
        if grade.checks_label and grade.label:
            yield (by, LABELS), (grade.score, grade.label.score)
