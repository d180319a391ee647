"""Reads the figures of each training step for signs that a reward is gamed or teaches nothing, and
stops the stage.

A reward alone cannot show this: a judge that always gives 1, or a decaying format, may earn as much
as an honest one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from proofloop.config.curriculum_file import Watch
from proofloop.errors import HintedError

Figures = Mapping[str, float]
"""The figures of one step, from its `TrainingStep`."""

ALWAYS = "always-"
"""The prefix of the share of one score among a judge's answers, as in `always-1 verifier`."""

PERFECT = 0.99
"""Above this mean reward, groups without a signal are no fault: there is nothing left to learn."""

FAILED_HINT = (
    "`proofloop runs show RUN` tells why the calls of a run failed. Fix the engine, then start a"
    " curriculum under a new name: this one keeps its failed calls. If the share is harmless, raise"
    " [watch] failed and run it again"
)
DRIFT_HINT = (
    "read the batches of its last steps. Then start a curriculum under a new name with fewer steps,"
    " a smaller learning rate or a larger kl_coefficient. If nothing is wrong, widen the limits in"
    " [watch] and run it again"
)
NO_SIGNAL_HINT = (
    "start a curriculum under a new name with a model that answers in the format: give [cold_start]"
    " demonstrations or runs, or more of its steps; or raise `samples` or the temperature. If"
    " nothing is wrong, set [watch] no_signal = 1 and run it again"
)


def check(stage: str, steps: Sequence[Figures], limits: Watch) -> None:
    """Raise HintedError naming what is wrong, by the means over `window` steps."""
    if len(steps) < limits.window:
        return
    first, last = steps[: limits.window], steps[-limits.window :]
    check_failed(f"stage {stage}", _mean(last, "failed"), limits)
    _check_signal(stage, first, limits)
    _check_format(stage, last, limits)
    _check_length(stage, first, last, limits)
    _check_scores(stage, last, limits)


def check_failed(what: str, share: float, limits: Watch) -> None:
    """Raise HintedError if too many calls had no answer: the others are no fair sample."""
    if share > limits.failed:
        raise HintedError(
            f"{what} was stopped: {share:.0%} of the model calls had no answer ([watch]"
            f" failed = {limits.failed:g})",
            FAILED_HINT,
        )


def _check_signal(stage: str, first: Sequence[Figures], limits: Watch) -> None:
    """Check the signal of the first steps only: later, a role that has learned its task has few
    groups with a signal.
    """
    groups = sum(each["groups"] for each in first)
    without = sum(each["groups_without_signal"] for each in first)
    if limits.no_signal == 1 or without <= limits.no_signal * groups:
        return
    reward, readable = _mean(first, "mean_reward"), _mean(first, "readable")
    if reward < PERFECT:
        raise HintedError(
            f"stage {stage} was stopped: {without:.0f} of {groups:.0f} groups have no signal: all"
            f" answers of a group earn the same; {readable:.0%} of the answers are readable, the"
            f" mean reward is {reward:.3f} ([watch] no_signal = {limits.no_signal:g})",
            NO_SIGNAL_HINT,
        )


def _check_format(stage: str, last: Sequence[Figures], limits: Watch) -> None:
    readable = _mean(last, "readable")
    if readable < limits.format:
        found = f"format drift: {readable:.0%} of the answers are readable"
        raise _drifted(stage, found, f"format = {limits.format}")


def _check_length(
    stage: str, first: Sequence[Figures], last: Sequence[Figures], limits: Watch
) -> None:
    usual, length = _mean(first, "mean_length"), _mean(last, "mean_length")
    if not limits.shorter * usual <= length <= limits.longer * usual:
        found = f"length drift: {length:.0f} tokens per answer, {usual:.0f} at the start"
        limit = f"shorter = {limits.shorter}, longer = {limits.longer}"
        raise _drifted(stage, found, limit)


def _check_scores(stage: str, last: Sequence[Figures], limits: Watch) -> None:
    """Check the scores of each judge in training. The cases are balanced: an honest judge gives no
    score to nearly all.
    """
    for name in filter(lambda name: name.startswith(ALWAYS), last[-1]):
        same = _mean(last, name)
        if same > limits.same_score:
            found = f"{name}: {same:.0%} of its answers give this score on balanced cases"
            raise _drifted(stage, found, f"same_score = {limits.same_score}")


def _mean(steps: Sequence[Figures], name: str) -> float:
    return fmean(each.get(name, 0.0) for each in steps)


def _drifted(stage: str, found: str, limit: str) -> HintedError:
    return HintedError(f"stage {stage} was stopped: {found} ([watch] {limit})", DRIFT_HINT)
