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
from proofloop.errors import HintedError
from proofloop.schema.records import TrainingSample
from proofloop_trainer.curriculum.rollouts import PREDICTED

JUDGES = ("verifier", "meta_verifier")


@dataclass(frozen=True)
class Sight:
    """The figures of one batch. `predicted`: the share of a judge's answers with a score, by a name
    such as `always-1 verifier`.
    """

    format: float
    length: float
    predicted: dict[str, float]


def look(samples: Sequence[TrainingSample]) -> Sight:
    """The figures of a batch. Judges that learn together have separate figures."""
    return Sight(
        format=fmean(sample.reward_parts["format"] for sample in samples),
        length=fmean(len(sample.tokens.completion_ids) for sample in samples),
        predicted=_predicted(samples),
    )


def _predicted(samples: Sequence[TrainingSample]) -> dict[str, float]:
    shares: dict[str, float] = {}
    for judge in JUDGES:
        own = [sample.reward_parts for sample in samples if sample.role == judge]
        scores = [parts[PREDICTED] for parts in own if PREDICTED in parts]
        for score, count in Counter(scores).items():
            shares[f"always-{score:g} {judge.replace('_', '-')}"] = count / len(scores)
    return shares


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
            f"length drift: {length:.0f} tokens per answer, {usual:.0f} at the start",
            limit,
        )
    for name in last[-1].predicted:
        same = fmean(each.predicted.get(name, 0.0) for each in last)
        if same > limits.same_score:
            found = f"{name}: {same:.0%} of its answers give this score on balanced cases"
            _stop(stage, found, f"same_score = {limits.same_score}")


def _stop(stage: str, found: str, limit: str) -> None:
    raise HintedError(
        f"stage {stage} was stopped: {found} ([watch] {limit})",
        "read the batches of its last steps. Then start a curriculum under a new name with fewer"
        " steps, a smaller learning rate or a larger kl_coefficient. If nothing is wrong, widen the"
        " limits in [watch] and run it again",
    )
