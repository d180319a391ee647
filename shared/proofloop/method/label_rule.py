"""The auto-labeling rule of section 2.3: many critiques become one label, or none.

The majority of m meta-critiques confirms or rejects each critique that reports an issue. The lowest
score of any critique is the label if at least k critiques with it are confirmed. If no issue is
confirmed, the label is 1. Otherwise the proof is undecided. Unreadable critiques have no score, and
an issue may be neither confirmed nor refuted because its meta-critiques are unreadable. If such
critiques are half of all or more, the absence of confirmed issues proves nothing, and the proof is
undecided.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from proofloop.schema.records import Judgement, Label, LabelKind, LabelOutcome, Score


@dataclass(frozen=True)
class Decision:
    """The result of the rule. `critiques`: the indices that carry the label."""

    outcome: LabelOutcome
    kind: LabelKind
    score: Score | None
    critiques: tuple[int, ...]
    solved: bool = False


UNDECIDED = Decision("undecided", "undecided", None, ())


def decide(judgements: Iterable[Judgement], *, n: int, k: int) -> Decision | None:
    """The label, or None while the critiques that are still missing (of n) could change it. Exact:
    more critiques never change outcome, kind and score. Prompt: it is None only while they could.
    """
    judged = sorted(judgements, key=lambda judgement: judgement.index)
    missing = n - len(judged)
    confirmed_zeros = _confirmed_at(judged, 0.0)
    if len(confirmed_zeros) >= k:
        return _rejected(0.0, confirmed_zeros, k)
    if missing <= 0:
        return _decide_complete(judged, n=n, k=k)
    return (
        None
        if _may_reach_quorum(judged, missing, k) or _may_be_accepted(judged, missing, n)
        else UNDECIDED
    )


def decide_by_majority(judgements: Iterable[Judgement], *, n: int) -> Decision | None:
    """The label without meta-verification: the most frequent score of n critiques, or the lower of
    two equally frequent ones. None until all are judged. Undecided if half or more are unreadable.
    """
    judged = sorted(judgements, key=lambda judgement: judgement.index)
    if len(judged) < n:
        return None
    if 2 * _readable(judged) <= n:
        return UNDECIDED
    votes = Counter(
        judgement.verdict.score for judgement in judged if judgement.verdict.score is not None
    )
    score = min(votes, key=lambda each: (-votes[each], each))
    carrying = tuple(each.index for each in judged if each.verdict.score == score)
    if score < 1.0:
        return Decision("rejected", "rejected_upheld", score, carrying)
    return Decision("accepted", "accepted", score, carrying, solved=len(carrying) == n)


def grade(score: Score | None) -> Decision:
    """The label that a grade makes; without one the proof is undecided."""
    outcome: LabelOutcome = "undecided"
    if score is not None:
        outcome = "accepted" if score == 1.0 else "rejected"
    return Decision(outcome, "graded", score, ())


def _may_reach_quorum(judged: Sequence[Judgement], missing: int, k: int) -> bool:
    """Whether k confirmed critiques of the lowest score are still possible: of 0, or of 0.5 while
    no critique scores 0.
    """
    zero_is_lowest = any(judgement.verdict.score == 0.0 for judgement in judged)
    reachable = (0.0,) if zero_is_lowest else (0.0, 0.5)
    return any(len(_confirmed_at(judged, score)) + missing >= k for score in reachable)


def _may_be_accepted(judged: Sequence[Judgement], missing: int, n: int) -> bool:
    return (
        not any(judgement.confirmed for judgement in judged)
        and 2 * (_settled(judged) + missing) > n
    )


def _settled(judged: Sequence[Judgement]) -> int:
    """The critiques that report no issue, or one that is confirmed or refuted."""
    return sum(
        judgement.verdict.score == 1.0 or judgement.confirmed is not None for judgement in judged
    )


def _readable(judged: Sequence[Judgement]) -> int:
    return sum(judgement.verdict.score is not None for judgement in judged)


def _decide_complete(judged: Sequence[Judgement], *, n: int, k: int) -> Decision:
    scores = [
        judgement.verdict.score for judgement in judged if judgement.verdict.score is not None
    ]
    lowest = min(scores, default=None)
    if lowest is not None and lowest < 1.0:
        carrying = _confirmed_at(judged, lowest)
        if len(carrying) >= k:
            return _rejected(lowest, carrying, k)
    if any(judgement.confirmed for judgement in judged) or 2 * _settled(judged) <= n:
        return UNDECIDED
    upheld = tuple(judgement.index for judgement in judged if judgement.verdict.score == 1.0)
    solved = len(upheld) == n
    return Decision("accepted", "accepted" if lowest == 1.0 else "overturned", 1.0, upheld, solved)


def _confirmed_at(judged: Sequence[Judgement], score: float) -> tuple[int, ...]:
    return tuple(
        judgement.index
        for judgement in judged
        if judgement.verdict.score == score and judgement.confirmed
    )


def _rejected(score: Score, carrying: tuple[int, ...], k: int) -> Decision:
    return Decision("rejected", "rejected_upheld", score, carrying[:k])


def decide_by_person(
    label: Label, judgements: Iterable[Judgement], *, score: Score, by: str
) -> Label:
    """The label of an undecided proof that a person graded: the critiques with the same score carry
    it. Never solved, because that takes n verdicts of 1.
    """
    scores = {
        judgement.index: judgement.verdict.score for judgement in judgements if judgement.index >= 0
    }
    carrying = tuple(sorted(index for index, given in scores.items() if given == score))
    fields = {"score": score, "by": by, "critiques": carrying}
    if score < 1.0:
        return label.model_copy(update={**fields, "outcome": "rejected", "kind": "rejected_upheld"})
    was_rejected = any(given is not None and given < 1.0 for given in scores.values())
    kind: LabelKind = "overturned" if was_rejected else "accepted"
    return label.model_copy(update={**fields, "outcome": "accepted", "kind": kind})


def majority(confirms: int, seen: int, m: int) -> bool | None:
    """Whether more than half of m meta-critiques confirm, given `confirms` among the `seen`; None
    while the others could change it.
    """
    if 2 * confirms > m:
        return True
    if 2 * (confirms + m - seen) <= m:
        return False
    return None
