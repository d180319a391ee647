"""What KEDA and the HorizontalPodAutoscaler that it makes do with a rendered ScaledObject, as a
pure function.

Written after KEDA 2.21's executor and Kubernetes' `horizontal.go`: from none and to none KEDA
decides, at once and by activity alone; between one and the maximum the autoscaler does, by the
messages a pod, with windows and policies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tests.helm.chart import Object

TOLERANCE = 0.1
"""kube-controller-manager leaves a number alone that is within so much of what is wanted."""


@dataclass(frozen=True)
class Pace:
    """One direction: the mildest wish of the last `window_s` counts, and at most `pods` change
    within `period_s`.
    """

    window_s: float
    pods: int
    period_s: float

    def faster(self, factor: float) -> Pace:
        return replace(self, window_s=self.window_s / factor, period_s=self.period_s / factor)


@dataclass(frozen=True)
class Rule:
    """A ScaledObject's numbers; times in seconds."""

    value: int
    activation: int
    least: int
    most: int
    polling_s: float
    cooldown_s: float
    up: Pace
    down: Pace

    def faster(self, factor: float) -> Rule:
        """The same rule where everything happens so many times as fast."""
        polling_s, cooldown_s = self.polling_s / factor, self.cooldown_s / factor
        up, down = self.up.faster(factor), self.down.faster(factor)
        return replace(self, polling_s=polling_s, cooldown_s=cooldown_s, up=up, down=down)


@dataclass(frozen=True)
class Memory:
    """What the autoscaler remembers: what it wanted when, what it changed when, and when there was
    last a message.
    """

    wishes: tuple[tuple[float, int], ...] = ()
    changes: tuple[tuple[float, int], ...] = ()
    active_at: float = -math.inf


def rule_of(scaled: Object) -> Rule:
    """The rule of a rendered ScaledObject with one queue; a policy other than pods a period is
    refused.
    """
    spec = scaled["spec"]
    [trigger] = spec["triggers"]
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    return Rule(
        value=int(trigger["metadata"]["value"]),
        activation=int(trigger["metadata"]["activationValue"]),
        least=spec["minReplicaCount"],
        most=spec["maxReplicaCount"],
        polling_s=spec["pollingInterval"],
        cooldown_s=spec["cooldownPeriod"],
        up=_pace(behavior["scaleUp"]),
        down=_pace(behavior["scaleDown"]),
    )


def _pace(behavior: Object) -> Pace:
    [policy] = behavior["policies"]
    if policy["type"] != "Pods":
        raise ValueError(
            f"a policy of type {policy['type']} is not known here: the chart writes Pods"
        )
    return Pace(behavior["stabilizationWindowSeconds"], policy["value"], policy["periodSeconds"])


def decide(
    rule: Rule, memory: Memory, now_s: float, pods: int, messages: int
) -> tuple[int, Memory]:
    """How many pods there shall be from now on, and what to remember until the next look."""
    active = messages > rule.activation
    memory = replace(memory, active_at=now_s if active else memory.active_at)
    if pods == 0:
        return max(1, rule.least) if active else rule.least, memory
    if rule.least == 0 and not active and now_s - memory.active_at > rule.cooldown_s:
        return 0, memory
    wishes = (*(memory.wishes or ((now_s, pods),)), (now_s, _wish(rule, pods, messages)))
    memory = _recent(rule, replace(memory, wishes=wishes), now_s)
    wanted = _limited(rule, memory, now_s, pods, _calmed(rule, memory, now_s, pods))
    if wanted == pods:
        return pods, memory
    return wanted, replace(memory, changes=(*memory.changes, (now_s, wanted - pods)))


def _wish(rule: Rule, pods: int, messages: int) -> int:
    """What the backlog alone asks for."""
    if abs(messages / (rule.value * pods) - 1) <= TOLERANCE:
        return pods
    return math.ceil(messages / rule.value)


def _calmed(rule: Rule, memory: Memory, now_s: float, pods: int) -> int:
    """Up to the lowest wish of the one window, down to the highest of the other; the newest is in
    both.
    """
    *before, (_, newest) = memory.wishes
    lowest = min([newest, *(wish for at, wish in before if at > now_s - rule.up.window_s)])
    highest = max([newest, *(wish for at, wish in before if at > now_s - rule.down.window_s)])
    return min(max(pods, lowest), highest)


def _limited(rule: Rule, memory: Memory, now_s: float, pods: int, wanted: int) -> int:
    """Within what the policies still allow in their periods, and within the bounds."""
    most = pods - _net(memory, now_s - rule.up.period_s) + rule.up.pods
    least = pods - _net(memory, now_s - rule.down.period_s) - rule.down.pods
    if wanted > pods:
        return min(wanted, max(pods, most), rule.most)
    return max(wanted, min(pods, least), rule.least, 1)


def _net(memory: Memory, since_s: float) -> int:
    return sum(change for at, change in memory.changes if at > since_s)


def _recent(rule: Rule, memory: Memory, now_s: float) -> Memory:
    """Without what no window and no period looks back to."""
    since_s = now_s - max(
        rule.up.window_s, rule.down.window_s, rule.up.period_s, rule.down.period_s
    )
    wishes = tuple(each for each in memory.wishes if each[0] >= since_s)
    return replace(
        memory, wishes=wishes, changes=tuple(each for each in memory.changes if each[0] >= since_s)
    )


def ideal_s(rule: Rule, concurrency: int, work_s: float) -> float:
    """How long calls of `work_s` seconds together take at best.

    With as many pods as the rule allows at each moment, there at once and seen from the first
    moment on, and no slot of theirs ever idle, not even at the end.
    """
    memory, pods, now_s = Memory(), max(1, rule.least), 0.0
    while True:
        pods, memory = decide(rule, memory, now_s, pods, 2 * rule.value * rule.most)
        done_s = pods * concurrency * rule.polling_s
        if done_s >= work_s:
            return now_s + work_s / (pods * concurrency)
        work_s -= done_s
        now_s += rule.polling_s
