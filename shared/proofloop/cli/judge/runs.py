"""The runs of `proofloop judge`: read the proofs, estimate, drive, collect."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from proofloop.api.drive import drive_here, drive_on_services
from proofloop.api.files import read_run
from proofloop.cli.common import stopping_on_signal
from proofloop.cli.progress import ProgressLine
from proofloop.config.run_file import RunSpec, read_fields
from proofloop.config.run_file.problems import Problems
from proofloop.config.settings import load_settings
from proofloop.errors import ConfigError
from proofloop.judging.attacks.kinds import attacked
from proofloop.judging.figures import JudgeFigures, judge_figures
from proofloop.judging.graded.columns import parse_columns
from proofloop.judging.graded.grades import parse_scale
from proofloop.judging.graded.proofs import GradedProofs, read_graded_proofs
from proofloop.judging.knock_out import (
    Comparisons,
    KnockOut,
    comparing_spec,
    knock_out,
    knock_out_figures,
)
from proofloop.judging.predictions import Predictions
from proofloop.judging.rows import JudgedProof, RowCollector
from proofloop.judging.runs import judging_fields, portions, run_name
from proofloop.method.domains import find_checker
from proofloop.method.prompts import load_pack
from proofloop.runs.costs import Spent, costs
from proofloop.runs.planning.capacity import Habits
from proofloop.runs.planning.estimate import RunEstimate, estimate
from proofloop.runs.progress import RunProgress
from proofloop.schema.given import GivenCase
from proofloop.schema.ids import check_id
from proofloop.store import Store

PlanOption = Annotated[
    bool, typer.Option("--plan", help="Estimate calls, tokens, time and money, and stop.")
]


@dataclass(frozen=True)
class Judged:
    """A finished run with its rows and figures."""

    spec: RunSpec
    rows: tuple[JudgedProof, ...]
    figures: JudgeFigures


def judging_specs(
    using: Sequence[Path], data: Path, name: str | None, ending: str
) -> list[RunSpec]:
    """One run for each run file. Raises ConfigError if two would have the same name."""
    if name is not None and len(using) > 1:
        raise ConfigError(
            f"--name {name} names one run, and there are {len(using)} run files",
            "leave it out: each run has its own name",
        )
    specs = []
    for file in using:
        fields = read_fields(file, RunSpec)
        own = check_id(name or run_name(fields["name"], data, ending), "--name")
        specs.append(read_run(judging_fields(fields, own)))
    names = [spec.name for spec in specs]
    if twice := [one for one in names if names.count(one) > 1]:
        raise ConfigError(
            f"two run files have the name {twice[0]!r}", "give each file a `name` of its own"
        )
    return specs


def read_proofs(
    data: Path, column: Sequence[str], scale: str | None, specs: Sequence[RunSpec]
) -> GradedProofs:
    """The proofs that all runs can judge, with the aids that their prompts show."""
    needed = {aid for spec in specs for aid in load_pack(spec.prompts, spec.base).aids}
    named = parse_columns(column)
    return read_graded_proofs(data, named, parse_scale(scale) if scale else None, sorted(needed))


def manipulated(read: GradedProofs, per_kind: int, spec: RunSpec) -> GradedProofs:
    """The manipulated proofs. Raises ConfigError without a right and a wrong proof."""
    scores = {case.graded.score for case in read.cases if case.graded}
    if missing := {1.0, 0.0} - scores:
        kind = "wrong" if 0.0 in missing else "right"
        raise ConfigError(f"--attack needs a {kind} proof", "add proofs that people graded")
    cases = attacked(read.cases, per_kind, find_checker(spec.problems.checker))
    return replace(read, cases=tuple(cases))


def estimate_run(spec: RunSpec, data: Path, cases: Sequence[GivenCase]) -> RunEstimate:
    """The estimate for judging these proofs."""
    as_file = spec.model_copy(update={"problems": Problems(given_proofs=data)})
    habits = Habits(attempts=1.0, critiqued=1.0, judged=0.5, assessed=1.0, searched=0.0)
    return estimate(as_file, None, habits, {}, cases=cases)


def judge_run(
    store: Store, spec: RunSpec, data: Path, read: GradedProofs, *, local: bool
) -> Judged:
    """Run, or resume, and compute the figures."""
    expected = estimate_run(spec, data, read.cases)
    print(f"{spec.name}: {_in_words(expected)}", file=sys.stderr)
    rule = spec.labeling
    predictions = Predictions(n=rule.n, k=rule.k, has_meta=bool(rule.m))
    collector = RowCollector(store, spec.name, spec.prices, predictions.add)
    _drive(store, spec, read.cases, collector.look_ahead, local=local)
    rows = collector.rows()
    return Judged(spec, rows, judge_figures(spec.name, rows, predictions))


def _drive(
    store: Store,
    spec: RunSpec,
    cases: Sequence[GivenCase],
    on_labeled: Callable[[int], None] = lambda labeled: None,
    *,
    local: bool,
) -> None:
    """Run, or resume, to the end. `on_labeled` gets the number of labeled proofs meanwhile."""
    drive = drive_here if local or load_settings().broker is None else drive_on_services
    given = list(portions(store, spec.name, cases))
    with stopping_on_signal() as stopping, ProgressLine() as line:

        def report(progress: RunProgress) -> None:
            line.show(spec.name, progress)
            on_labeled(progress.labeled)

        drive(store, spec, stopping, report, resume=True, portions=given)


def comparing_specs(
    specs: Sequence[RunSpec], pack: str | None, *, is_attack: bool
) -> list[RunSpec]:
    """The runs that compare the accepted proofs; none without a pack. Raises ConfigError."""
    if pack and is_attack:
        raise ConfigError(
            "--knock-out and --attack exclude each other",
            "leave one out: manipulated proofs have no best one",
        )
    return [comparing_spec(spec, pack) for spec in specs] if pack else []


def knocked_out(store: Store, judged: Judged, spec: RunSpec, *, local: bool) -> Judged:
    """The judged run with a knock-out among the accepted proofs of each problem, compared by
    `spec`.
    """
    comparisons = Comparisons(
        store, judged.spec.name, spec.name, lambda cases: _drive(store, spec, cases, local=local)
    )
    winners, matches = knock_out(judged.rows, comparisons.play)
    spent = costs(store, spec.name).total if matches else Spent()
    found = KnockOut(
        run_id=spec.name,
        matches=len(matches),
        tokens=spent.prompt_tokens + spent.completion_tokens,
        money=spent.money,
        figures=knock_out_figures(judged.rows, winners, matches),
    )
    return replace(judged, figures=judged.figures.model_copy(update={"knock_out": found}))


def _in_words(expected: RunEstimate) -> str:
    calls = [sum(getattr(role.calls, end) for role in expected.roles) for end in ("low", "high")]
    tokens = (expected.tokens.low, expected.tokens.high)
    text = (
        f"{expected.problems} proofs, {calls[0]:,.0f} to {calls[1]:,.0f} calls,"
        f" {tokens[0]:,.0f} to {tokens[1]:,.0f} tokens"
    )
    money = expected.money
    return f"{text}, cost {money.low:,.2f} to {money.high:,.2f}" if money else text
