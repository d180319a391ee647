"""Looks at each batch for signs that a reward is gamed and not earned, and stops the stage.

A reward cannot show this: a judge that always says 1, or a format that melts, may earn as much as an honest one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from proofloop.curriculum import Watch
from proofloop.errors import ProofloopError
from proofloop.records import TrainingSample
from proofloop_trainer.curriculum.rollouts import SAID

JUDGES = ("verifier", "meta_verifier")


@dataclass(frozen=True)
class Sight:
    """What one batch looks like. `same_score`: the largest share of one score among the answers of one judge.

    `said`: which judge says which score.
    """

    format: float
    length: float
    same_score: float
    said: str


def look(samples: Sequence[TrainingSample]) -> Sight:
    """What the watch keeps of a batch. Judges that learn together are looked at one by one."""
    share, said = max((_same_score(samples, judge) for judge in JUDGES), key=lambda found: found[0])
    return Sight(
        format=fmean(sample.reward_parts["format"] for sample in samples),
        length=fmean(len(sample.tokens.completion_ids) for sample in samples),
        same_score=share,
        said=said,
    )


def _same_score(samples: Sequence[TrainingSample], judge: str) -> tuple[float, str]:
    said = [
        sample.reward_parts[SAID]
        for sample in samples
        if sample.group.rpartition("-")[0] == judge and SAID in sample.reward_parts
    ]
    if not said:
        return 0.0, ""
    score = max(set(said), key=said.count)
    return said.count(score) / len(said), f"always-{score:g} {judge.replace('_', '-')}"


def check(stage: str, sights: Sequence[Sight], limits: Watch) -> None:
    """Raise ProofloopError naming what drifted, by the means of the last `window` batches."""
    if len(sights) < limits.window:
        return
    last, first = sights[-limits.window :], sights[: limits.window]
    readable, length = fmean(each.format for each in last), fmean(each.length for each in last)
    usual = fmean(each.length for each in first)
    if readable < limits.format:
        _stop(stage, f"format drift: {readable:.0%} of the answers are readable", f"format = {limits.format}")
    if not limits.shorter * usual <= length <= limits.longer * usual:
        limit = f"shorter = {limits.shorter}, longer = {limits.longer}"
        _stop(stage, f"length drift: {length:.0f} tokens an answer, {usual:.0f} at the beginning", limit)
    if (same := fmean(each.same_score for each in last)) > limits.same_score and len({x.said for x in last}) == 1:
        found = f"{last[0].said}: {same:.0%} of its answers say so on balanced cases"
        _stop(stage, found, f"same_score = {limits.same_score}")


def _stop(stage: str, found: str, limit: str) -> None:
    raise ProofloopError(
        f"stage {stage} was stopped: {found} ([watch] {limit})\n"
        "hint: read the batches of its last steps; then fewer steps, a smaller learning rate or a larger "
        "kl_coefficient under a new name"
    )
