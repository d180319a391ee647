"""Looks at each batch for signs that a reward is gamed and not earned, and stops the stage.

A reward cannot show this: a judge that always says 1, or a format that melts, may earn as much as
an honest one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from proofloop.config.curriculum_file import Watch
from proofloop.errors import ProofloopError
from proofloop.schema.records import TrainingSample
from proofloop_trainer.curriculum.rollouts import SAID

JUDGES = ("verifier", "meta_verifier")


@dataclass(frozen=True)
class Sight:
    """What one batch looks like. `said`: of each judge and score, `always-1 verifier`, the share of
    its answers.
    """

    format: float
    length: float
    said: dict[str, float]


def look(samples: Sequence[TrainingSample]) -> Sight:
    """What the watch keeps of a batch. Judges that learn together are looked at one by one."""
    return Sight(
        format=fmean(sample.reward_parts["format"] for sample in samples),
        length=fmean(len(sample.tokens.completion_ids) for sample in samples),
        said={name: share for judge in JUDGES for name, share in _said(samples, judge).items()},
    )


def _said(samples: Sequence[TrainingSample], judge: str) -> dict[str, float]:
    scores = [
        sample.reward_parts[SAID]
        for sample in samples
        if sample.role == judge and SAID in sample.reward_parts
    ]
    name = judge.replace("_", "-")
    return {
        f"always-{score:g} {name}": count / len(scores) for score, count in Counter(scores).items()
    }


def check(stage: str, sights: Sequence[Sight], limits: Watch) -> None:
    """Raise ProofloopError naming what drifted, by the means of the last `window` batches."""
    if len(sights) < limits.window:
        return
    last, first = sights[-limits.window :], sights[: limits.window]
    readable, length = fmean(each.format for each in last), fmean(each.length for each in last)
    usual = fmean(each.length for each in first)
    if readable < limits.format:
        _stop(
            stage,
            f"format drift: {readable:.0%} of the answers are readable",
            f"format = {limits.format}",
        )
    if not limits.shorter * usual <= length <= limits.longer * usual:
        limit = f"shorter = {limits.shorter}, longer = {limits.longer}"
        _stop(
            stage,
            f"length drift: {length:.0f} tokens per answer, {usual:.0f} at the beginning",
            limit,
        )
    for said in last[-1].said:
        if (same := fmean(each.said.get(said, 0.0) for each in last)) > limits.same_score:
            found = f"{said}: {same:.0%} of its answers give this score on balanced cases"
            _stop(stage, found, f"same_score = {limits.same_score}")


def _stop(stage: str, found: str, limit: str) -> None:
    raise ProofloopError(
        f"stage {stage} was stopped: {found} ([watch] {limit})\n"
        "hint: read the batches of its last steps. Then start a curriculum under a new name with"
        " fewer steps, a smaller"
        " learning rate or a larger kl_coefficient. If nothing is wrong, widen the limits in"
        " [watch] and run it again"
    )
