"""`proofloop plan`: estimates a run, and plans pods and GPUs for a load of problems."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from proofloop.api.files import read_run
from proofloop.cli.common import JsonOption, StoreOption, need_run, open_store
from proofloop.cli.plan.inputs import (
    NEVER_CALLED,
    Inputs,
    MissingTime,
    check_times,
    numbers_of,
)
from proofloop.cli.plan.options import (
    AnswerTokensOption,
    BacklogOption,
    BusyOption,
    CallSecondsOption,
    ConcurrencyOption,
    FileArgument,
    FromOption,
    GpuHourOption,
    GpusOption,
    IssueShareOption,
    Options,
    ProblemsOption,
    PromptTokensOption,
    StreamsOption,
    TokensPerSecondOption,
    ValuesOption,
    by_role,
)
from proofloop.cli.plan.output import load_fields, print_json, print_load, print_run
from proofloop.config.run_file import RunSpec
from proofloop.errors import ConfigError
from proofloop.runs.flow import in_work
from proofloop.runs.planning.capacity import (
    LABELER_S,
    Habits,
    Load,
    Observed,
    RoleCalls,
    RolePlan,
    observed,
    plan,
    proofs_per_problem,
    values_snippet,
    work_of_a_proof,
)
from proofloop.runs.planning.estimate import GivenNumbers, RunEstimate, estimate
from proofloop.schema.records import MODEL_ROLES, PIPELINE_ROLES, ModelRole, Role


def plan_command(
    file: FileArgument = None,
    problems_per_hour: ProblemsOption = 100.0,
    measured: FromOption = None,
    tokens_per_second: TokensPerSecondOption = None,
    streams: StreamsOption = None,
    gpus: GpusOption = None,
    gpu_hour: GpuHourOption = 0.0,
    answer_tokens: AnswerTokensOption = None,
    prompt_tokens: PromptTokensOption = None,
    call_seconds: CallSecondsOption = None,
    issue_share: IssueShareOption = None,
    busy: BusyOption = 0.8,
    concurrency: ConcurrencyOption = None,
    backlog_rounds: BacklogOption = 2.0,
    store: StoreOption = None,
    values: ValuesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Estimate a run: calls, tokens, hours, cost. Then plan pods, model servers and GPUs for a load
    of problems an hour.

    The budgets (n, m, proofs of a problem, refinement) come from the run file, or from the run of
    --from. An option for all roles takes a number; for one role, ROLE=NUMBER. Repeat it as needed:

    \b
    proofloop plan run.toml --problems-per-hour 100 --tokens-per-second 4000 \\
        --streams 128 --gpus 8 --gpu-hour 2.5 \\
        --answer-tokens 30000 --answer-tokens verifier=12000

    Without --from, the low end of the run's estimate is a guess; the high end is all calls and
    tokens that the budgets allow. The load is steady: n critiques, m judgements of each issue,
    answers of max_tokens, prompts of 2000 tokens, an issue in half of the analyses. Real prompts
    and shares of issues can be larger. For better numbers, make a small run with your models and
    name it by --from. The page docs/how-to/costs.md explains each number.
    """
    given = GivenNumbers(
        tokens_per_second=by_role("--tokens-per-second", tokens_per_second),
        streams=by_role("--streams", streams),
        gpus=by_role("--gpus", gpus),
        answer_tokens=by_role("--answer-tokens", answer_tokens),
        prompt_tokens=by_role("--prompt-tokens", prompt_tokens),
        call_seconds=by_role("--call-seconds", call_seconds),
        issue_share=issue_share,
    )
    options = Options(
        file=file,
        measured=measured,
        store=store,
        problems_per_hour=problems_per_hour,
        gpu_hour=gpu_hour,
        busy=busy,
        backlog_rounds=backlog_rounds,
        given=given,
        concurrency=by_role("--concurrency", concurrency),
    )
    basis = _basis(options)
    if values:
        _print_values(basis)
    else:
        _print_plan(basis, as_json=as_json)


@dataclass(frozen=True)
class Basis:
    """The data of a plan. `called`: the roles that make calls."""

    options: Options
    spec: RunSpec
    seen: Observed | None
    inputs: Inputs
    habits: Habits
    called: tuple[ModelRole, ...]
    served: dict[ModelRole, RoleCalls]

    def check_times(self) -> None:
        """Raises MissingTime."""
        check_times(self.called, self.served, self.inputs.run)


def _basis(options: Options) -> Basis:
    seen, spec = _read(options)
    inputs = Inputs(options.measured or "", numbers_of(seen) if seen else {})
    habits = inputs.habits(spec, options.given.issue_share)
    work = work_of_a_proof(habits, spec)
    called = tuple(role for role in MODEL_ROLES if work[role].calls)
    served: dict[ModelRole, RoleCalls] = dict.fromkeys(MODEL_ROLES, NEVER_CALLED)
    for role in called:
        served[role] = inputs.served(role, spec, options.given)
    return Basis(options, spec, seen, inputs, habits, called, served)


def _read(options: Options) -> tuple[Observed | None, RunSpec]:
    """The figures of the measured run, and the run to plan for: the file's, else the measured
    one.
    """
    file = options.file
    run = options.measured
    if run is None:
        if file is None:
            raise ConfigError(
                "no run to plan: FILE and --from are missing",
                "name a run.toml, or a run in the store by --from",
            )
        return None, _sampled(read_run(file))
    store = open_store(options.store, must_exist=True)
    spec = need_run(store, run)
    return observed(store, run), _sampled(read_run(file) if file else spec)


def _sampled(spec: RunSpec) -> RunSpec:
    """The spec. Raises ConfigError for a run without model calls."""
    if spec.fine_tuning:
        raise ConfigError(
            f"run {spec.name!r} has [fine_tuning]: it calls no model, and a plan counts calls",
            "start it with `proofloop run`, which prints its supervised steps; or plan"
            " a run with [problems]",
        )
    return spec


def _print_values(basis: Basis) -> None:
    basis.check_times()
    rows, load = _plan(basis)
    print(values_snippet(rows, load))


def _print_plan(basis: Basis, *, as_json: bool) -> None:
    """Print the run's estimate, and the plan of the load if the calls have times."""
    own = _estimate(basis)
    if own and not as_json:
        print_run(own, basis.spec)
    try:
        basis.check_times()
    except MissingTime as missing:
        if as_json:
            print_json(own, {})
        print(
            f"no plan for pods and GPUs: {missing.problem} (hint: {missing.hint})", file=sys.stderr
        )
        return
    rows, load = _plan(basis)
    proofs = load.problems_per_hour * proofs_per_problem(basis.spec, basis.habits)
    assumed = basis.inputs.assumed
    if as_json:
        print_json(own, load_fields(rows, proofs, load, assumed))
    else:
        print_load(rows, proofs, load, assumed)


def _plan(basis: Basis) -> tuple[list[RolePlan], Load]:
    options = basis.options
    basis.inputs.pick("labeler: seconds of a message", None, "", LABELER_S, "a guess")
    slots: dict[Role, int] = {}
    for role in PIPELINE_ROLES:
        slots[role] = int(options.concurrency.get(role, in_work(basis.spec, role)))
    load = Load(
        options.problems_per_hour, options.busy, options.backlog_rounds, options.gpu_hour, slots
    )
    served: dict[Role, RoleCalls] = {role: basis.served[role] for role in MODEL_ROLES}
    return plan(basis.spec, basis.habits, served, load), load


def _estimate(basis: Basis) -> RunEstimate | None:
    """The estimate of the run; None for a measured run whose problem file is missing here. Raises
    ConfigError.
    """
    try:
        return estimate(basis.spec, basis.seen, basis.habits, basis.served, basis.options.given)
    except ConfigError:
        if basis.options.file is None:
            return None
        raise
