"""Rules by which n critiques of a proof accept it.

Each rule gives a proof a strength in [0, 1]: the higher, the better the critiques speak of it. A
rule accepts from a threshold on; `chosen_threshold` picks it on proofs with known grades. An
unreadable critique has no score: only the others count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from proofloop.method.label_rule import UNDECIDED, Decision, decide, decide_by_majority
from proofloop.schema.records import Judgement, LabelKind, Score

Judgements = Sequence[Judgement]
Strength = Callable[[Judgements], float | None]


def scores_of(judged: Judgements) -> list[Score]:
    """The scores of the readable critiques."""
    return [each.verdict.score for each in judged if each.verdict.score is not None]


def _share(one: Judgement) -> float | None:
    """The share of full marks, if the verifier gives points, else the score."""
    return one.verdict.score if one.verdict.share is None else one.verdict.share


def mean(judged: Judgements) -> float | None:
    """The mean of the scores, or of the shares of full marks."""
    shares = [share for each in judged if (share := _share(each)) is not None]
    return fmean(shares) if shares else None


def judged_mean(judged: Judgements) -> float | None:
    """The mean of the scores after meta-verification: issues that are not confirmed do not
    count.
    """
    shares = [
        1.0 if each.confirmed is False else share
        for each in judged
        if (share := _share(each)) is not None
    ]
    return fmean(shares) if shares else None


def minimum(judged: Judgements) -> float | None:
    """The lowest score."""
    return min(scores_of(judged), default=None)


def unanimous(judged: Judgements) -> float | None:
    """1 if all n critiques were readable and scored 1, else 0: "solved" in the method."""
    return float(all(each.verdict.score == 1.0 for each in judged)) if judged else None


def majority(judged: Judgements) -> float | None:
    """The most frequent score; the lower one of two. None if half or more are unreadable."""
    decision = decide_by_majority(judged, n=len(judged)) if judged else None
    return decision.score if decision else None


def quorum(judged: Judgements, k: int) -> float | None:
    """The label of section 2.3: k confirmed critiques of the lowest score reject. None if it leaves
    the proof undecided.
    """
    if not judged:
        return None
    decision = decide(judged, n=len(judged), k=min(k, len(judged)))
    return decision.score if decision else None


STRENGTHS: Mapping[str, Strength] = {"mean": mean, "minimum": minimum, "unanimous": unanimous}


def decide_by_strength(
    judgements: Iterable[Judgement], *, rule: str, n: int, accept_at: float = 1.0
) -> Decision | None:
    """The label by one of STRENGTHS: accepted from `accept_at` on, else the lowest score. None
    until all n critiques are judged. Undecided if half or more are unreadable, or if only they
    stand against the proof.
    """
    judged = sorted(judgements, key=lambda judgement: judgement.index)
    scores = {each.index: each.verdict.score for each in judged if each.verdict.score is not None}
    if len(judged) < n:
        return None
    if 2 * len(scores) <= n:
        return UNDECIDED
    lowest = min(scores.values())
    strength = STRENGTHS[rule](judged)
    if strength is not None and strength >= accept_at:
        passing = tuple(index for index, score in scores.items() if score == 1.0)
        kind: LabelKind = "accepted" if lowest == 1.0 else "overturned"
        return Decision("accepted", kind, 1.0, passing, solved=len(passing) == n)
    if lowest == 1.0:
        return UNDECIDED
    carrying = tuple(index for index, score in scores.items() if score == lowest)
    return Decision("rejected", "rejected_upheld", lowest, carrying)


def rules(k: int, *, has_meta: bool) -> Mapping[str, Strength]:
    """All rules by name; those with meta-verification only where critiques were judged."""
    found: dict[str, Strength] = {
        "mean": mean,
        "minimum": minimum,
        "unanimous": unanimous,
        "majority": majority,
    }
    if has_meta:
        found |= {"quorum": lambda judged: quorum(judged, k), "judged_mean": judged_mean}
    return found


@dataclass(frozen=True)
class Threshold:
    """`accepts`: the share of the proofs at or above `at` among those it was chosen on."""

    at: float
    accepts: float


def chosen_threshold(strengths: Iterable[float | None], acceptance: float) -> Threshold:
    """The lowest threshold that accepts at most this share of the proofs; the highest strength if
    each accepts more. No rule accepts a proof without a strength, or of strength 0.
    """
    known = list(strengths)
    levels = sorted({each for each in known if each}, reverse=True)
    best = Threshold(1.0, 0.0)
    for position, level in enumerate(levels):
        share = sum(each is not None and each >= level for each in known) / len(known)
        if share > acceptance and position:
            return best
        best = Threshold(level, share)
    return best
