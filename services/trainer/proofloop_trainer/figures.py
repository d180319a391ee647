"""The figures of a step's answers: how many are readable, and which scores the judges give.

They are over all answers of the step's problems, also those of groups that no step learns from. A
curriculum's watch reads them: a judge that always gives the same score may earn as much as an
honest one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import fmean

from proofloop.schema.records import ModelRole
from proofloop_trainer.samples import PREDICTED, Group, RewardedAnswer

JUDGES: tuple[ModelRole, ...] = ("verifier", "meta_verifier")


def figures_of(groups: Sequence[Group]) -> dict[str, float]:
    """The figures by name. Judges that learn together also have figures of their own, such as
    `readable verifier`.
    """
    answers = [answer for group in groups for answer in group.answers]
    if not answers:
        return {}
    return {
        **dict(_readable(answers)),
        "groups": float(len(groups)),
        "groups_without_signal": float(sum(not group.has_signal for group in groups)),
        "mean_length": fmean(answer.provenance.completion_tokens for answer in answers),
        **dict(_scores(answers)),
    }


def failed_share(groups: Sequence[Group]) -> dict[str, float]:
    """The share of model calls without an answer, as `failed`; also of groups that no step can
    learn from.
    """
    failed = sum(group.failed for group in groups)
    calls = failed + sum(len(group.answers) for group in groups)
    return {"failed": failed / calls} if calls else {}


def _readable(answers: Sequence[RewardedAnswer]) -> Iterator[tuple[str, float]]:
    yield "readable", fmean(answer.reward_parts["format"] for answer in answers)
    roles = sorted({answer.role for answer in answers})
    for role in roles if len(roles) > 1 else ():
        own = [answer.reward_parts["format"] for answer in answers if answer.role == role]
        yield f"readable {_in_words(role)}", fmean(own)


def _scores(answers: Sequence[RewardedAnswer]) -> Iterator[tuple[str, float]]:
    """The share of each score among a judge's readable answers, as `always-1 verifier`."""
    for judge in JUDGES:
        parts = [answer.reward_parts for answer in answers if answer.role == judge]
        scores = Counter(each[PREDICTED] for each in parts if PREDICTED in each)
        for score, count in sorted(scores.items()):
            yield f"always-{score:g} {_in_words(judge)}", count / scores.total()


def _in_words(role: ModelRole) -> str:
    return role.replace("_", "-")
