"""The pods, replicas and GPUs for a load of problems, and their cost: arithmetic on the means.

The calls in flight follow from Little's law: calls a second times seconds a call. The load is
steady; a burst needs more, or more time.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from proofloop.config.run_file import EnginePrices, Prices, RunSpec
from proofloop.config.run_file.labeling import Labeling
from proofloop.errors import ConfigError
from proofloop.runs.costs import HOUR_S, CostTally, Spent, bills, money, spec_of
from proofloop.runs.search.records import searches_of
from proofloop.schema.records import MODEL_ROLES, PIPELINE_ROLES, ModelRole, Role
from proofloop.store import Store

LABELER_S = 0.1
"""Assumed of the labeler's messages: it lists and reads a proof's judgements, so this is a few
answers of the store.
"""

GPUS_A_NODE = 8
"""A replica with more of them takes several pods, a LeaderWorkerSet."""


@dataclass(frozen=True)
class Habits:
    """The share of the budgets that models use, in the mean; all of it without a measured run.

    `searched`: the share of a search's possible proofs, after the first ones, that it writes.
    `attempts`: attempts at a proof. `readable`: the share of readable proofs; only these are
    reviewed. `critiqued`: the share of the n critiques that are written. `judged`: the share of
    analyses, the proofs' own included, that report an issue. `assessed`: the share of the m
    meta-critiques that are written.
    """

    attempts: float
    readable: float = 1.0
    critiqued: float = 1.0
    judged: float = 0.5
    assessed: float = 1.0
    searched: float = 1.0


@dataclass(frozen=True)
class RoleCalls:
    """The calls and the server of one role's model. `call_seconds`: the time of one call, beside
    the others of its replica. `tokens_per_second`: the rate of a whole replica, prompts included;
    None for a hosted model.
    """

    prompt_tokens: float
    answer_tokens: float
    call_seconds: float
    tokens_per_second: float | None = None
    gpus: int = 1


@dataclass(frozen=True)
class Load:
    """The load of an hour, and its limits. `busy`: the intended share of busy time of the replicas.
    `concurrency`: messages that a pod handles at once. `backlog_rounds`: messages for each slot,
    running and waiting, at which another pod starts.
    """

    problems_per_hour: float
    busy: float
    backlog_rounds: float
    gpu_hour: float
    concurrency: Mapping[Role, int]


@dataclass(frozen=True)
class RoleWork:
    """The work of a role for one proof: messages, calls, and waits, which are calls one after
    another in one slot.
    """

    messages: float
    waits: float
    calls: float

    def __add__(self, other: RoleWork) -> RoleWork:
        return RoleWork(
            self.messages + other.messages, self.waits + other.waits, self.calls + other.calls
        )


PricedBy = Literal["--gpu-hour", "[prices]"]


@dataclass(frozen=True)
class RolePlan:
    """The plan of one role. `at_once`: messages in work. `value`: messages a pod, KEDA's target.
    `pods` suffice for the mean load, `max_pods` keep the replicas full. `replicas` and `gpus` are 0
    if none is needed. `cost_per_hour` is None without a price; `priced_by` is the price's source.
    """

    role: Role
    messages_per_hour: float
    calls_per_hour: float
    prompt_tokens: float
    answer_tokens: float
    call_seconds: float
    at_once: float
    concurrency: int
    pods: int
    max_pods: int
    value: int
    replicas: int
    busy: float
    gpus: int
    cost_per_hour: float | None
    priced_by: PricedBy | None


def work_of_a_proof(proofs: Habits, spec: RunSpec) -> dict[Role, RoleWork]:
    """The messages and calls that follow from the budgets, as the roles' handlers spend them."""
    rule, none = spec.labeling, RoleWork(0.0, 0.0, 0.0)
    if spec.problems.given_analyses:
        judged = RoleWork(1.0, 1.0, float(rule.metas_of_given))
        return _works(none, none, judged, RoleWork(1.0, 1.0, 0.0))
    written = RoleWork(proofs.attempts, proofs.attempts, proofs.attempts)
    if rule.by == "checker" and not spec.problems.is_given:
        return _works(written, none, none, RoleWork(1.0, 1.0, 0.0))
    judges_own = not (spec.problems.given_proofs or spec.searches_by_need)
    own = proofs.readable if judges_own else 0.0
    asked = rule.n * (1.0 if spec.problems.given_proofs else proofs.readable)
    critiques = asked * proofs.critiqued
    judged = _judged(critiques, rule.m, proofs, rule) + _judged(
        own, rule.metas_of_self, proofs, rule
    )
    return _works(
        none if spec.problems.given_proofs else written,
        RoleWork(asked, critiques, critiques),
        judged,
        RoleWork(critiques + 1, critiques + 1, 0.0),
    )


def _works(*works: RoleWork) -> dict[Role, RoleWork]:
    return dict(zip(PIPELINE_ROLES, works, strict=True))


def _judged(analyses: float, m: int, proofs: Habits, rule: Labeling) -> RoleWork:
    """The work of the meta-verifier for so many analyses; those that report an issue get up to
    m.
    """
    if not m:
        return RoleWork(analyses, 0.0, 0.0)
    judged, assessments = analyses * proofs.judged, proofs.assessed * m
    waits = judged * _rounds(assessments, m, stop_early=rule.stop_early)
    return RoleWork(analyses, waits, judged * max(1.0, assessments))


def _rounds(assessments: float, m: int, *, stop_early: bool) -> float:
    """The rounds of meta-critiques: with early stopping first as few as can be a majority, then the
    others together.
    """
    first = m // 2 + 1 if stop_early else m
    return 1.0 if first == m else 1 + min(1.0, max(0.0, (assessments - first) / (m - first)))


def plan(
    spec: RunSpec, proofs: Habits, served: Mapping[Role, RoleCalls], load: Load
) -> list[RolePlan]:
    """One row for each role of a run, except the trainer, which is one pod for any load."""
    proofs_per_hour = load.problems_per_hour * proofs_per_problem(spec, proofs)
    labels = RoleCalls(0, 0, LABELER_S)
    return [
        _row(role, work, served.get(role, labels), proofs_per_hour, load, spec.prices)
        for role, work in work_of_a_proof(proofs, spec).items()
    ]


def proofs_per_problem(spec: RunSpec, proofs: Habits) -> float:
    """The first proofs of a problem, and those of its search."""
    first = spec.problems.first_proofs
    return first + proofs.searched * (spec.most_proofs_per_problem - first)


def _row(
    role: Role, work: RoleWork, model: RoleCalls, proofs_per_hour: float, load: Load, prices: Prices
) -> RolePlan:
    calls = proofs_per_hour * work.calls
    at_once = proofs_per_hour * work.waits / HOUR_S * model.call_seconds
    replicas, busy = _replicas(
        calls / HOUR_S * model.answer_tokens, model.tokens_per_second, load.busy
    )
    slots = load.concurrency[role]
    gpus = replicas * model.gpus
    cost, priced_by = _cost(calls, model, gpus * load.gpu_hour, prices.of(role))
    return RolePlan(
        role=role,
        messages_per_hour=proofs_per_hour * work.messages,
        calls_per_hour=calls,
        prompt_tokens=model.prompt_tokens,
        answer_tokens=model.answer_tokens,
        call_seconds=model.call_seconds,
        at_once=at_once,
        concurrency=slots,
        pods=_up(at_once / slots),
        max_pods=_up(at_once / busy / slots),
        value=_up(slots * load.backlog_rounds),
        replicas=replicas,
        busy=busy,
        gpus=gpus,
        cost_per_hour=cost,
        priced_by=priced_by,
    )


def _cost(
    calls: float, model: RoleCalls, gpu_hours: float, prices: EnginePrices
) -> tuple[float | None, PricedBy | None]:
    """The cost of an hour's calls and the price's source: the GPU price if given, else the run's
    prices.
    """
    if gpu_hours:
        return gpu_hours, "--gpu-hour"
    if not calls:
        return 0.0, None
    if prices == EnginePrices():
        return None, None
    used = calls * model.prompt_tokens, calls * model.answer_tokens, calls * model.call_seconds
    return money(prices, *used), "[prices]"


def cost_of(rows: list[RolePlan]) -> float | None:
    """The cost of an hour; None without a price."""
    known = [row.cost_per_hour for row in rows if row.priced_by and row.cost_per_hour is not None]
    return sum(known) if known else None


def _replicas(tokens_per_second: float, of_one: float | None, busy: float) -> tuple[int, float]:
    """The number of replicas and their busy share, at most `busy`. No replica for a hosted
    model.
    """
    if of_one is None or tokens_per_second == 0:
        return 0, busy
    replicas = _up(tokens_per_second / (of_one * busy))
    return replicas, tokens_per_second / (of_one * replicas)


def _up(number: float) -> int:
    """The next whole number, at least 1, without the rounding error of a sum."""
    return max(1, math.ceil(number - 1e-9))


@dataclass(frozen=True)
class Observed:
    """The figures of a measured run: its habits, and the mean call of each role with calls.
    `has_searched`: some of its searches have ended; `searched` comes from these.
    `tokens_by_problem`: those of all calls.
    """

    habits: Habits
    calls: Mapping[ModelRole, Spent]
    has_searched: bool
    tokens_by_problem: tuple[float, ...] = ()


def observed(store: Store, run_id: str) -> Observed:
    """The means over a run's labeled proofs. Raises ConfigError if there are none."""
    spec = spec_of(store, run_id)
    tally, judged, readable = CostTally(spec.prices), 0, 0
    tokens: Counter[str] = Counter()
    for bill in bills(store, run_id):
        if bill.label is not None:
            tally.add(bill)
            tokens[bill.problem_id] += sum(
                call.prompt_tokens + call.completion_tokens for _, call in bill.calls
            )
            judged += bill.judged
            readable += bill.verdict.outcome == "valid"
    found, rule = tally.costs, spec.labeling
    if not found.proofs:
        raise ConfigError(
            f"--from {run_id}: none of its proofs has a label yet", "name a run that has ended"
        )
    calls = {role: found.by_role[role].calls for role in MODEL_ROLES}
    first = spec.problems.first_proofs
    refined = [search.proofs - first for search in searches_of(store, run_id)]
    habits = Habits(
        attempts=calls["generator"] / found.proofs,
        readable=readable / found.proofs,
        critiqued=_share(calls["verifier"], readable * rule.n),
        judged=_share(judged, calls["verifier"] + readable),
        assessed=_share(calls["meta_verifier"], judged * rule.m),
        searched=fmean(refined) / (spec.most_proofs_per_problem - first) if refined else 1.0,
    )
    means = {role: found.by_role[role].over(int(calls[role])) for role in MODEL_ROLES}
    known = {role: mean for role, mean in means.items() if mean is not None}
    return Observed(habits, known, bool(refined), tuple(map(float, tokens.values())))


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def values_snippet(rows: list[RolePlan], load: Load) -> str:
    """The rows as part of a values file of the chart, with the numbers that it computes from them
    as comments.
    """
    lines = [f"# helm/proofloop, for {load.problems_per_hour:g} problems an hour", "roles:"]
    for row in rows:
        lines += [
            f"  {row.role}:",
            f"    concurrency: {row.concurrency}",
            f"    replicas: {row.pods} # where nothing scales",
            f"    scaling: {{ kind: keda, maxReplicas: {row.max_pods}, backlogRounds:"
            f" {load.backlog_rounds:g} }}"
            f" # {row.value} messages a pod",
        ]
        if row.replicas:
            lines.append(f"    serving: {{ {_serving(row)} }}")
    return "\n".join(lines)


def _serving(row: RolePlan) -> str:
    gpus = row.gpus // row.replicas
    if gpus <= GPUS_A_NODE:
        return f"replicas: {row.replicas}, gpus: {gpus}"
    return (
        f"kind: LeaderWorkerSet, groupSize: {gpus // GPUS_A_NODE}, replicas: {row.replicas}, gpus:"
        f" {GPUS_A_NODE}"
    )
