"""Rules by which n critiques of a proof accept it.

Each rule gives a proof a strength in [0, 1]: the higher, the better the critiques speak of it. A
rule accepts from a threshold on; `chosen_threshold` picks it on proofs with known grades. A vote
without a score was unreadable. It supports no proof: only the other votes count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean
from typing import Literal

from proofloop.method.label_rule import UNDECIDED, Decision, decide, decide_by_majority
from proofloop.schema.records import Judgement, LabelKind, Score, Verdict


@dataclass(frozen=True)
class Vote:
    """A critique: its score, None if unreadable; `confirmed`: whether its issues are confirmed."""

    score: Score | None
    confirmed: bool | None = None

    @property
    def judged_score(self) -> Score | None:
        """The score after meta-verification: issues that are not confirmed do not count."""
        return 1.0 if self.confirmed is False else self.score


Votes = Sequence[Vote]
Strength = Callable[[Votes], float | None]


def mean(votes: Votes) -> float | None:
    """The mean of the scores."""
    scores = [vote.score for vote in votes if vote.score is not None]
    return fmean(scores) if scores else None


def judged_mean(votes: Votes) -> float | None:
    """The mean of the scores after meta-verification."""
    scores = [vote.judged_score for vote in votes if vote.judged_score is not None]
    return fmean(scores) if scores else None


def minimum(votes: Votes) -> float | None:
    """The lowest score."""
    return min((vote.score for vote in votes if vote.score is not None), default=None)


def unanimous(votes: Votes) -> float | None:
    """1 if all n critiques were readable and scored 1, else 0: "solved" in the method."""
    return float(all(vote.score == 1.0 for vote in votes)) if votes else None


def majority(votes: Votes) -> float | None:
    """The most frequent score; of two the lower. None if half or more are unreadable."""
    decision = decide_by_majority(_judgements(votes), n=len(votes)) if votes else None
    return decision.score if decision else None


def quorum(votes: Votes, k: int) -> float | None:
    """The label of section 2.3: k confirmed critiques of the lowest score reject. None if it leaves
    the proof undecided.
    """
    if not votes:
        return None
    decision = decide(_judgements(votes), n=len(votes), k=min(k, len(votes)))
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
    strength = STRENGTHS[rule]([Vote(each.verdict.score) for each in judged])
    if strength is not None and strength >= accept_at:
        passing = tuple(index for index, score in scores.items() if score == 1.0)
        kind: LabelKind = "accepted" if lowest == 1.0 else "overturned"
        return Decision("accepted", kind, 1.0, passing, solved=len(passing) == n)
    if lowest == 1.0:
        return UNDECIDED
    carrying = tuple(index for index, score in scores.items() if score == lowest)
    return Decision("rejected", "rejected_upheld", lowest, carrying)


def _judgements(votes: Votes) -> list[Judgement]:
    return [_judgement(index, vote) for index, vote in enumerate(votes)]


@lru_cache(maxsize=10_000)
def _judgement(index: int, vote: Vote) -> Judgement:
    outcome: Literal["malformed", "valid"] = "malformed" if vote.score is None else "valid"
    verdict = Verdict(outcome=outcome, score=vote.score)
    return Judgement(
        proof_id="", index=index, verdict=verdict, confirmed=vote.confirmed, quality=0.0
    )


def rules(k: int, *, has_meta: bool) -> Mapping[str, Strength]:
    """All rules by name; those with meta-verification only where critiques were judged."""
    found: dict[str, Strength] = {
        "mean": mean,
        "minimum": minimum,
        "unanimous": unanimous,
        "majority": majority,
    }
    if has_meta:
        found |= {"quorum": lambda votes: quorum(votes, k), "judged_mean": judged_mean}
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
