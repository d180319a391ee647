"""The tables and the JSON of `proofloop plan`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from proofloop.cli.common import emit
from proofloop.cli.progress import span
from proofloop.config.run_file import RunSpec
from proofloop.runs.costs import HOUR_S
from proofloop.runs.planning.capacity import Load, RolePlan, cost_of, values_snippet
from proofloop.runs.planning.estimate import Range, RunEstimate


def print_run(estimate: RunEstimate, spec: RunSpec) -> None:
    """Print the estimate of one run."""
    rows = [_range("proofs", estimate.proofs)]
    rows += [_range(f"calls of the {role.role}", role.calls) for role in estimate.roles]
    prompts = _sum(role.prompt_tokens for role in estimate.roles)
    answers = _sum(role.answer_tokens for role in estimate.roles)
    rows.append(_range("tokens of prompts", prompts))
    rows.append(_range("tokens of answers", answers))
    rows.append(_range("time", estimate.hours, lambda hours: span(hours * HOUR_S)))
    if estimate.money:
        rows.append(_range("cost, by [prices]", estimate.money, lambda money: f"{money:,.2f}"))
    cases = "proofs" if spec.problems.has_proofs else "problems"
    emit(rows, as_json=False, title=f"{spec.name}: {estimate.problems} {cases}")
    for reason in estimate.rests_on:
        print(f"- {reason}")
    if estimate.money is None:
        print("- no cost: the run file has no [prices]")
    for limit in _exceeded_limits(spec, estimate):
        print(f"- {limit}")
    print()


def print_load(rows: list[RolePlan], proofs: float, load: Load, assumed: list[Any]) -> None:
    """Print the plan of a load: its assumptions, its work, its machines, the chart's values."""
    emit([{**one, "value": f"{one['value']:,.5g}"} for one in assumed], as_json=False)
    emit(
        [_work(row) for row in rows],
        as_json=False,
        title=f"{load.problems_per_hour:g} problems, {proofs:g} proofs an hour",
    )
    gpus = sum(row.gpus for row in rows)
    machines = [_machines(row) for row in rows]
    emit(machines, as_json=False, title=f"{gpus} GPUs; {_cost(rows, load)}")
    print(values_snippet(rows, load))


def print_json(estimate: RunEstimate | None, load: Mapping[str, Any]) -> None:
    run = {**asdict(estimate), "tokens": asdict(estimate.tokens)} if estimate else None
    print(json.dumps({"run": run, **load}, indent=2))


def load_fields(
    rows: list[RolePlan], proofs: float, load: Load, assumed: list[Any]
) -> dict[str, Any]:
    """The plan of a load as JSON fields."""
    cost = cost_of(rows)
    total = {
        "problems_per_hour": load.problems_per_hour,
        "proofs_per_hour": proofs,
        "calls_per_hour": sum(row.calls_per_hour for row in rows),
        "gpus": sum(row.gpus for row in rows),
        "cost_per_hour": cost,
        "cost_per_problem": None if cost is None else cost / load.problems_per_hour,
    }
    return {
        "total": total,
        "roles": [asdict(row) for row in rows],
        "assumed": assumed,
        "values": values_snippet(rows, load),
    }


def _range(
    what: str, ends: Range, write: Callable[[float], str] = lambda value: f"{value:,.0f}"
) -> dict[str, str]:
    return {"the whole run": what, "low": write(ends.low), "high": write(ends.high)}


def _sum(ranges: Iterable[Range]) -> Range:
    found = list(ranges)
    return Range(sum(each.low for each in found), sum(each.high for each in found))


def _exceeded_limits(spec: RunSpec, estimate: RunEstimate) -> Iterator[str]:
    """The limits of [budget] that the run exceeds or may exceed."""
    ranges = {"tokens": estimate.tokens, "money": estimate.money, "hours": estimate.hours}
    for name, ends in ranges.items():
        limit = getattr(spec.budget, name)
        if limit is not None and ends is not None and ends.high > limit:
            verb = "is" if ends.low > limit else "may be"
            yield f"[budget] {name} = {limit:g} {verb} too small for the whole run"


def _cost(rows: list[RolePlan], load: Load) -> str:
    """The cost of the load, and the source of its prices."""
    cost = cost_of(rows)
    if cost is None:
        return "cost not known: give --gpu-hour or [prices]"
    sources = " and ".join(sorted({row.priced_by for row in rows if row.priced_by}))
    unpriced = "".join(f", without the {row.role}" for row in rows if row.cost_per_hour is None)
    per_problem = cost / load.problems_per_hour
    return f"cost {cost:,.2f} an hour, {per_problem:,.2f} a problem, by {sources}{unpriced}"


def _work(row: RolePlan) -> dict[str, str]:
    return {
        "role": row.role,
        "messages an hour": f"{row.messages_per_hour:,.0f}",
        "calls an hour": f"{row.calls_per_hour:,.0f}",
        "tokens a second": f"{row.calls_per_hour * row.answer_tokens / HOUR_S:,.0f}",
        "seconds a call": f"{row.call_seconds:,.3g}" if row.calls_per_hour else "-",
        "messages in flight": f"{row.at_once:,.1f}",
    }


def _machines(row: RolePlan) -> dict[str, str]:
    return {
        "role": row.role,
        "concurrency": str(row.concurrency),
        "pods": str(row.pods),
        "max pods": str(row.max_pods),
        "messages a pod": str(row.value),
        "replicas": str(row.replicas or "-"),
        "busy": f"{row.busy:.0%}" if row.replicas else "-",
        "GPUs": str(row.gpus or "-"),
        "cost an hour": f"{row.cost_per_hour:,.2f}" if row.cost_per_hour else "-",
    }
