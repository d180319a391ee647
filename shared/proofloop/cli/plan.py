"""`proofloop plan`: how many pods and GPUs for so many problems an hour, with the chart's values
that follow.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from proofloop.cli.common import JsonOption, StoreOption, emit, need_run, open_store, span
from proofloop.cli.files import read_run
from proofloop.config.run_file import RunSpec
from proofloop.errors import ConfigError
from proofloop.pipeline.embedded import WALK_ROLES
from proofloop.runs.costs import HOUR_S
from proofloop.runs.flow import in_work
from proofloop.runs.planning.capacity import (
    GPUS_A_NODE,
    LABELER_S,
    Habits,
    Load,
    Observed,
    RolePlan,
    Served,
    cost_of,
    observed,
    plan,
    proofs_per_problem,
    values_snippet,
    work_of_a_proof,
)
from proofloop.runs.planning.estimate import Range, RunEstimate, estimate
from proofloop.schema.records import MODEL_ROLES, ModelRole, Role

MOST = 1e9
"""Of every number that is given: far more than any load, and what follows from it stays a
number.
"""

PROMPT_TOKENS, STREAMS, ISSUE_SHARE = 2000.0, 64.0, 0.5
"""What is assumed where neither an option nor a run says better."""

ATTEMPTS, READABLE, CRITIQUED = (
    "attempts at a proof",
    "share of proofs in the right format",
    "share of n critiques",
)
SEARCHED = "share of the proofs that a search may write"
JUDGED, ASSESSED = "share of analyses with an issue", "share of m judgements"
ANSWER, PROMPT, SECONDS = "tokens of an answer", "tokens of a prompt", "seconds of a call"

NEVER_CALLED = Served(prompt_tokens=0, answer_tokens=0, call_seconds=0)

ByRole = dict[str, float]


class Unsaid(ConfigError):
    """A number that a plan needs and that neither an option nor a run says."""


@dataclass
class Inputs:
    """Picks each number that the plan builds on, and remembers who said it: an option, else `run`,
    else a default.
    """

    run: str
    seen: Mapping[str, float]
    assumed: list[dict[str, Any]] = field(default_factory=list)

    def pick(
        self, what: str, given: float | None, option: str, default: float, source: str
    ) -> float:
        if given is not None:
            value, source = given, option
        elif what in self.seen:
            value, source = self.seen[what], f"run {self.run}"
        else:
            value = default
        self.assumed.append({"assumed": what, "value": value, "by": source})
        return value

    def habits(self, spec: RunSpec, issue_share: float | None) -> Habits:
        most = float(spec.refinement.iterations)
        return Habits(
            attempts=min(most, self.pick(ATTEMPTS, None, "", most, "the budget")),
            readable=self.pick(READABLE, None, "", 1.0, "all"),
            critiqued=self.pick(CRITIQUED, None, "", 1.0, "the budget"),
            judged=self.pick(JUDGED, issue_share, "--issue-share", ISSUE_SHARE, "a guess"),
            assessed=self.pick(ASSESSED, None, "", 1.0, "the budget"),
            searched=self.pick(SEARCHED, None, "", 1.0, "the budget")
            if spec.search.rounds
            else 1.0,
        )

    def served(self, role: ModelRole, spec: RunSpec, options: Mapping[str, ByRole]) -> Served:
        """How the role is asked and served; calls take 0 s where neither an option nor the run says
        a time.
        """
        given = {option: of.get(role) for option, of in options.items()}
        most, option = float(spec.sampling_of(role).max_tokens), "--answer-tokens"
        answer = self.pick(f"{role}: {ANSWER}", given[option], option, most, "max_tokens")
        option = "--prompt-tokens"
        prompt = self.pick(f"{role}: {PROMPT}", given[option], option, PROMPT_TOKENS, "a guess")
        seconds, option, rate = (
            given["--call-seconds"],
            "--call-seconds",
            given["--tokens-per-second"],
        )
        if seconds is None and rate is not None:
            streams = given["--streams"] or STREAMS
            seconds, option = answer * streams / rate, f"{streams:g} streams at {rate:g} tokens/s"
        seconds = self.pick(f"{role}: {SECONDS}", seconds, option, 0.0, "nobody")
        return Served(prompt, answer, seconds, rate, int(given["--gpus"] or 1))


def _need_times(roles: Iterable[ModelRole], served: Mapping[ModelRole, Served], run: str) -> None:
    """Raises Unsaid for the first of the roles whose calls have no time."""
    for role in roles:
        if not served[role].call_seconds:
            hint = (
                "give --tokens-per-second for model servers of your own, --call-seconds for hosted"
                " ones"
            )
            if run:
                raise Unsaid(f"run {run} has no time for calls of the {role}", hint)
            raise Unsaid(
                f"nobody says how long a call of the {role} takes", f"{hint}, or --from RUN"
            )


def _seen(found: Observed) -> dict[str, float]:
    """What a run showed, under the names of the numbers."""
    habits = found.habits
    shares = {ATTEMPTS: habits.attempts, READABLE: habits.readable, JUDGED: habits.judged}
    if "verifier" in found.calls:
        shares[CRITIQUED] = habits.critiqued
    if "meta_verifier" in found.calls:
        shares[ASSESSED] = habits.assessed
    calls = {
        f"{role}: {name}": value
        for role, mean in found.calls.items()
        for name, value in (
            (ANSWER, mean.completion_tokens),
            (PROMPT, mean.prompt_tokens),
            (SECONDS, mean.engine_seconds),
        )
    }
    searched = {SEARCHED: habits.searched} if found.has_searched else {}
    return shares | searched | calls


def by_role(
    option: str, given: list[str] | None, least: float, roles: tuple[str, ...] = MODEL_ROLES
) -> ByRole:
    """What `--option 5 --option verifier=7` says of each role. Raises ConfigError."""
    found: ByRole = {}
    for text in sorted(
        given or (), key=lambda text: "=" in text
    ):  # what is said of all roles first
        role, _, value = text.rpartition("=")
        if role and role not in roles:
            raise ConfigError(
                f"{option} {text}: unknown role {role!r}", f"one of: {', '.join(roles)}"
            )
        found |= dict.fromkeys([role] if role else roles, _number(option, text, value, least))
    return found


def _number(option: str, text: str, value: str, least: float) -> float:
    hint = f"write {option} 5, or {option} verifier=5 for one role"
    try:
        number = float(value)
    except ValueError as error:
        raise ConfigError(f"{option} {text}: {value!r} is no number", hint) from error
    if not least <= number <= MOST:
        raise ConfigError(f"{option} {text}: must be a number from {least:g} to {MOST:g}", hint)
    if option in WHOLE and number % 1:
        raise ConfigError(f"{option} {text}: must be a whole number", hint)
    if option == "--gpus" and number > GPUS_A_NODE and number % GPUS_A_NODE:
        raise ConfigError(
            f"{option} {text}: more than {GPUS_A_NODE} are several nodes", "give a multiple of 8"
        )
    return number


WHOLE = ("--gpus", "--concurrency")


def plan_command(
    file: Annotated[
        Path | None, typer.Argument(help="A run.toml: budgets, sampling, flow and prices.")
    ] = None,
    problems_per_hour: Annotated[
        float, typer.Option(min=0.001, max=MOST, help="The load.")
    ] = 100.0,
    measured: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="A run in the store: its mean tokens, call times, issues and early stops.",
        ),
    ] = None,
    tokens_per_second: Annotated[
        list[str] | None,
        typer.Option(
            help="What one full replica of your model servers samples; leave it out for hosted"
            " models."
        ),
    ] = None,
    streams: Annotated[
        list[str] | None,
        typer.Option(help="Calls that a replica answers at once at that rate (64)."),
    ] = None,
    gpus: Annotated[list[str] | None, typer.Option(help="GPUs of one replica (1).")] = None,
    gpu_hour: Annotated[
        float, typer.Option(min=0, max=MOST, help="Price of a GPU for an hour.")
    ] = 0.0,
    answer_tokens: Annotated[
        list[str] | None,
        typer.Option(help="Tokens of an answer; default: of the run, else max_tokens, the most."),
    ] = None,
    prompt_tokens: Annotated[
        list[str] | None, typer.Option(help="Tokens of a prompt; default: of the run, else 2000.")
    ] = None,
    call_seconds: Annotated[
        list[str] | None,
        typer.Option(
            help="Time of a call; default: answer tokens x streams / tokens per second, else of the"
            " run."
        ),
    ] = None,
    issue_share: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Analyses that report an issue and are judged; default: of the run, else 0.5.",
        ),
    ] = None,
    busy: Annotated[
        float, typer.Option(min=0.05, max=1, help="The share of their time that replicas work.")
    ] = 0.8,
    concurrency: Annotated[
        list[str] | None,
        typer.Option(help="Messages that a pod handles at once; default: [flow] of the run.toml."),
    ] = None,
    backlog_rounds: Annotated[
        float,
        typer.Option(
            min=0.1, max=MOST, help="Messages for each slot at which KEDA starts another pod."
        ),
    ] = 2.0,
    store: StoreOption = None,
    values: Annotated[
        bool, typer.Option("--values", help="Print only the chart's values, for a file.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """What a run takes: calls, tokens, hours, money, low and high. Then pods, servers and GPUs for
    problems an hour.

    Budgets (n, m, proofs a problem, refinement) come from the run.toml, or from the run that --from
    names. Options that differ by role are given again and again: a number for all roles,
    ROLE=NUMBER for one.

    \b
    proofloop plan run.toml --problems-per-hour 100 --tokens-per-second 4000 \\
        --streams 128 --gpus 8 --gpu-hour 2.5 \\
        --answer-tokens 30000 --answer-tokens verifier=12000

    Without --from the run's low end is a guess, and its high end the most calls and answers that
    its budgets allow. The load is a steady one: n critiques, m judgements of an issue, answers of
    max_tokens, but prompts of 2000 tokens and an issue in half of the analyses; both may be higher.
    Make a small run with your models and name it by --from: its means take the place of all of
    these. docs/how-to/capacity.md explains each number.
    """
    seen, spec = _budgets(file, measured, store)
    options = {
        "--tokens-per-second": by_role("--tokens-per-second", tokens_per_second, 0.001),
        "--streams": by_role("--streams", streams, 1),
        "--gpus": by_role("--gpus", gpus, 1),
        "--answer-tokens": by_role("--answer-tokens", answer_tokens, 1),
        "--prompt-tokens": by_role("--prompt-tokens", prompt_tokens, 0),
        "--call-seconds": by_role("--call-seconds", call_seconds, 0.001),
    }
    slots = by_role("--concurrency", concurrency, 1, WALK_ROLES)
    pods: dict[Role, int] = {role: int(slots.get(role, in_work(spec, role))) for role in WALK_ROLES}
    inputs = Inputs(measured or "", _seen(seen) if seen else {})
    habits = inputs.habits(spec, issue_share)
    given: dict[str, ByRole] = {
        **options,
        "--issue-share": {} if issue_share is None else {"all": issue_share},
    }
    work = work_of_a_proof(habits, spec.labeling)
    called: list[ModelRole] = [role for role in MODEL_ROLES if work[role].calls]
    served: dict[ModelRole, Served] = dict.fromkeys(MODEL_ROLES, NEVER_CALLED)
    served |= {role: inputs.served(role, spec, options) for role in called}
    try:
        _need_times(called, served, measured or "")
    except Unsaid as unsaid:
        if values:
            raise
        _show_run(
            _estimated(spec, seen, habits, served, given, file), spec, as_json=as_json, more={}
        )
        print(f"no pods and GPUs planned: {unsaid.problem} (hint: {unsaid.hint})", file=sys.stderr)
        return
    inputs.pick("labeler: seconds of a message", None, "", LABELER_S, "a guess")
    load = Load(problems_per_hour, busy, backlog_rounds, gpu_hour, pods)
    proofs = load.problems_per_hour * proofs_per_problem(spec, habits)
    rows = plan(spec, habits, {role: served[role] for role in MODEL_ROLES}, load)
    if values:
        print(values_snippet(rows, load))
        return
    own = _estimated(spec, seen, habits, served, given, file)
    _show_run(own, spec, as_json=as_json, more=_fields(rows, proofs, load, inputs))
    if not as_json:
        _show(rows, proofs, load, inputs)


def _estimated(
    spec: RunSpec,
    seen: Observed | None,
    habits: Habits,
    served: Mapping[ModelRole, Served],
    given: Mapping[str, ByRole],
    file: Path | None,
) -> RunEstimate | None:
    """What the run itself takes. Raises ConfigError, but for a measured run whose problem file is
    not here.
    """
    try:
        return estimate(spec, seen, habits, served, given)
    except ConfigError:
        if file is None:
            return None
        raise


def _show_run(
    own: RunEstimate | None, spec: RunSpec, *, as_json: bool, more: Mapping[str, Any]
) -> None:
    """The run itself, before what a load of problems needs."""
    if as_json:
        run = {**asdict(own), "tokens": asdict(own.tokens)} if own else None
        print(json.dumps({"run": run, **more}, indent=2))
        return
    if own is None:
        return
    rows = [_range("proofs", own.proofs)]
    rows += [_range(f"calls of the {role.role}", role.calls) for role in own.roles]
    rows += [_range("tokens of prompts", _sum(role.prompt_tokens for role in own.roles))]
    rows.append(_range("tokens of answers", _sum(role.answer_tokens for role in own.roles)))
    rows.append(_range("time", own.hours, lambda hours: span(hours * HOUR_S)))
    rows += (
        [_range("money, by [prices]", own.money, lambda money: f"{money:,.2f}")]
        if own.money
        else []
    )
    emit(rows, as_json=False, title=f"{spec.name}: {own.problems} problems")
    for reason in own.rests_on:
        print(f"- {reason}")
    if own.money is None:
        print("- no money: the file has no [prices]")
    for limit in _too_small(spec, own):
        print(f"- {limit}")
    print()


def _range(
    what: str, ends: Range, shown: Callable[[float], str] = lambda value: f"{value:,.0f}"
) -> dict[str, str]:
    return {"the run itself": what, "low": shown(ends.low), "high": shown(ends.high)}


def _sum(ranges: Iterable[Range]) -> Range:
    found = list(ranges)
    return Range(sum(each.low for each in found), sum(each.high for each in found))


def _too_small(spec: RunSpec, own: RunEstimate) -> Iterator[str]:
    """The limits of [budget] that the run may reach before its end."""
    for name, ends in (("tokens", own.tokens), ("money", own.money), ("hours", own.hours)):
        limit = getattr(spec.budget, name)
        if limit is not None and ends is not None and ends.high > limit:
            certainly = "is" if ends.low > limit else "may be"
            yield f"[budget] {name} = {limit:g} {certainly} used up before the end"


def _budgets(
    file: Path | None, run: str | None, folder: Path | None
) -> tuple[Observed | None, RunSpec]:
    """What was measured, and the run that is planned for: the file's, else the measured one."""
    if file is None and run is None:
        raise ConfigError("nothing to plan for", "name a run.toml, or a run in the store by --from")
    if run is None:
        assert file is not None
        return None, read_run(file)
    store = open_store(folder, must_exist=True)
    spec = need_run(store, run)
    return observed(store, run), read_run(file) if file else spec


def _fields(rows: list[RolePlan], proofs: float, load: Load, inputs: Inputs) -> dict[str, Any]:
    """The plan of a load as JSON."""
    cost = cost_of(rows)
    total = {
        "problems_per_hour": load.problems_per_hour,
        "proofs_per_hour": proofs,
        "calls_per_hour": sum(row.calls_per_hour for row in rows),
        "gpus": sum(row.gpus for row in rows),
        "cost_per_hour": cost,
        "cost_per_problem": None if cost is None else cost / load.problems_per_hour,
    }
    roles = [asdict(row) for row in rows]
    return {
        "total": total,
        "roles": roles,
        "assumed": inputs.assumed,
        "values": values_snippet(rows, load),
    }


def _show(rows: list[RolePlan], proofs: float, load: Load, inputs: Inputs) -> None:
    emit([{**one, "value": f"{one['value']:,.5g}"} for one in inputs.assumed], as_json=False)
    emit(
        [_work(row) for row in rows],
        as_json=False,
        title=f"{load.problems_per_hour:g} problems, {proofs:g} proofs an hour",
    )
    gpus = sum(row.gpus for row in rows)
    emit(
        [_machines(row) for row in rows], as_json=False, title=f"{gpus} GPUs; {_price(rows, load)}"
    )
    print(values_snippet(rows, load))


def _price(rows: list[RolePlan], load: Load) -> str:
    """The cost in words, and who said the prices."""
    cost = cost_of(rows)
    if cost is None:
        return "no cost: neither --gpu-hour nor [prices] says one"
    by = " and ".join(sorted({row.priced_by for row in rows if row.priced_by}))
    unknown = "".join(f", without the {row.role}" for row in rows if row.cost_per_hour is None)
    return (
        f"cost {cost:,.2f} an hour, {cost / load.problems_per_hour:,.2f} a problem, by"
        f" {by}{unknown}"
    )


def _work(row: RolePlan) -> dict[str, str]:
    return {
        "role": row.role,
        "messages an hour": f"{row.messages_per_hour:,.0f}",
        "calls an hour": f"{row.calls_per_hour:,.0f}",
        "tokens a second": f"{row.calls_per_hour * row.answer_tokens / HOUR_S:,.0f}",
        "seconds a call": f"{row.call_seconds:,.3g}" if row.calls_per_hour else "-",
        "messages at once": f"{row.at_once:,.1f}",
    }


def _machines(row: RolePlan) -> dict[str, str]:
    return {
        "role": row.role,
        "concurrency": str(row.concurrency),
        "pods": str(row.pods),
        "at most": str(row.max_pods),
        "messages a pod": str(row.value),
        "replicas": str(row.replicas or "-"),
        "busy": f"{row.busy:.0%}" if row.replicas else "-",
        "GPUs": str(row.gpus or "-"),
        "cost an hour": f"{row.cost_per_hour:,.2f}" if row.cost_per_hour else "-",
    }
