"""`proofloop judge`: measures verifiers on proofs that people graded."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from proofloop.api.drive import drive_here, drive_on_services
from proofloop.api.files import read_run
from proofloop.cli.common import StoreOption, emit, open_store, stopping_on_signal
from proofloop.cli.plan.output import print_run
from proofloop.cli.progress import ProgressLine
from proofloop.config.run_file import RunSpec, read_fields
from proofloop.config.run_problems import Problems
from proofloop.config.settings import load_settings
from proofloop.errors import ConfigError
from proofloop.judging.agreement import statistics
from proofloop.judging.attack_figures import attack_figures, parser_figures
from proofloop.judging.attacks import attacked
from proofloop.judging.columns import parse_columns
from proofloop.judging.data import GradedProofs, read_graded_proofs
from proofloop.judging.figures import JudgeFigures, judge_figures
from proofloop.judging.grades import parse_scale
from proofloop.judging.page import write_page
from proofloop.judging.rows import JudgedProof, RowCollector, write_rows
from proofloop.judging.runs import judging_fields, portions, run_name
from proofloop.judging.tables import attack_rows, figure_rows
from proofloop.method.domains import find_domain
from proofloop.method.prompts import load_pack
from proofloop.runs.planning.capacity import Habits
from proofloop.runs.planning.estimate import RunEstimate, estimate
from proofloop.runs.progress import RunProgress
from proofloop.schema.ids import check_id
from proofloop.store import Store

SKIPPED_PRINTED = 10

PLAN_OPTIONS = (
    "--answer-tokens",
    "--prompt-tokens",
    "--tokens-per-second",
    "--streams",
    "--call-seconds",
    "--issue-share",
)


@dataclass(frozen=True)
class Judged:
    """A finished run with its rows and figures."""

    spec: RunSpec
    rows: tuple[JudgedProof, ...]
    figures: JudgeFigures


def judge(
    data: Annotated[
        Path,
        typer.Argument(help="Proofs with people's grades: JSON, JSONL, CSV, TSV or Parquet."),
    ],
    using: Annotated[
        list[Path],
        typer.Option(
            "--using",
            help="A run.toml: its engine, models, prompts, sampling and labeling judge the proofs."
            " Repeat it to compare judges side by side.",
        ),
    ],
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            help="Which column holds what, as in grade=Points: problem, proof, grade, max,"
            " problem_id, source, reference, rubric, id. Default: guessed by name.",
        ),
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(
            "--scale",
            help="The scale of the grades: score (0, 0.5, 1), pass-fail, or the number of full"
            " marks. Default: guessed from the largest grade.",
        ),
    ] = None,
    attack: Annotated[
        bool,
        typer.Option(
            "--attack",
            help="Judge manipulated proofs instead, made from those of the file by rule: planted"
            " scores, instructions, deleted steps and others. Says how often each kind succeeds.",
        ),
    ] = False,
    per_kind: Annotated[
        int, typer.Option("--per-kind", min=1, help="The most proofs of each kind of attack.")
    ] = 10,
    plan: Annotated[
        bool, typer.Option("--plan", help="Estimate calls, tokens, time and money, and stop.")
    ] = False,
    name: Annotated[
        str | None,
        typer.Option(
            "--name", help="The run's name, if there is one --using. Default: of both files."
        ),
    ] = None,
    rows: Annotated[
        Path | None,
        typer.Option("--rows", help="Write one JSON line for each judged proof to this file."),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            "--page", help="Write the figures, plots and worst disagreements to this HTML file."
        ),
    ] = None,
    store: StoreOption = None,
    local: Annotated[
        bool,
        typer.Option(
            "--local", help="Run all services in this process, even with PROOFLOOP_BROKER set."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Measure judges on proofs with people's grades.

    The verifier, the meta-verifier and the labeling rule of each run file judge the proofs. The
    figures compare them with the grades: how often they agree, how lenient they are, what more
    critiques buy and what they cost, with 95 % intervals. No model sees a grade. To resume an
    interrupted run, run the command again: no stored answer is paid twice.

    With --attack the command measures who can fool the judges: manipulated proofs, whose right
    grade is known, are judged, and accepted ones are counted for each kind of attack.
    """
    specs = _specs(using, data, name, "-attacked" if attack else "")
    statistics()  # a missing extra is named before any model is paid
    read = _read(data, column or [], scale, specs)
    if attack:
        read = _attacked(read, per_kind, specs[0])
    _print_notes(read)
    if plan:
        for spec in specs:
            print_run(_estimate(spec, data, read), spec)
        return
    opened = open_store(store)
    judged = [_judge(opened, spec, data, read, local=local) for spec in specs]
    if rows is not None:
        write_rows(tuple(row for one in judged for row in one.rows), rows)
    if page is not None:
        write_page(opened, [(one.rows, one.figures) for one in judged], page)
    if attack:
        _print_attacks(judged, read, as_json=as_json)
    else:
        _print(judged, read, as_json=as_json)


def _attacked(read: GradedProofs, per_kind: int, spec: RunSpec) -> GradedProofs:
    """The manipulated proofs. Raises ConfigError without a right and a wrong proof."""
    scores = {case.graded.score for case in read.cases if case.graded}
    if missing := {1.0, 0.0} - scores:
        kind = "wrong" if 0.0 in missing else "right"
        raise ConfigError(f"there is no {kind} proof to attack", "add proofs that people graded")
    domain = find_domain(spec.problems.checker) if spec.problems.checker else None
    cases = attacked(read.cases, per_kind, domain.checker if domain else None)
    return replace(read, cases=tuple(cases))


def _specs(using: Sequence[Path], data: Path, name: str | None, ending: str) -> list[RunSpec]:
    if name is not None and len(using) > 1:
        raise ConfigError(
            f"--name {name} with {len(using)} run files", "leave it out: each run has its own name"
        )
    specs = []
    for file in using:
        fields = read_fields(file, RunSpec)
        own = check_id(name or run_name(fields["name"], data, ending), "--name")
        specs.append(read_run(judging_fields(fields, own)))
    names = [spec.name for spec in specs]
    if twice := [one for one in names if names.count(one) > 1]:
        raise ConfigError(
            f"two run files have the name {twice[0]!r}", "set a `name` in each of them"
        )
    return specs


def _read(
    data: Path, column: Sequence[str], scale: str | None, specs: Sequence[RunSpec]
) -> GradedProofs:
    needed = {aid for spec in specs for aid in load_pack(spec.prompts, spec.base).aids}
    named = parse_columns(column)
    return read_graded_proofs(data, named, parse_scale(scale) if scale else None, sorted(needed))


def _print_notes(read: GradedProofs) -> None:
    for note in read.notes:
        print(note, file=sys.stderr)
    for reason in read.skipped[:SKIPPED_PRINTED]:
        print(f"skipped: {reason}", file=sys.stderr)
    if len(read.skipped) > SKIPPED_PRINTED:
        print(f"skipped: {len(read.skipped) - SKIPPED_PRINTED} more rows", file=sys.stderr)


def _estimate(spec: RunSpec, data: Path, read: GradedProofs) -> RunEstimate:
    as_file = spec.model_copy(update={"problems": Problems(given_proofs=data)})
    habits = Habits(attempts=1.0, critiqued=1.0, judged=0.5, assessed=1.0, searched=0.0)
    given: dict[str, dict[str, float]] = {option: {} for option in PLAN_OPTIONS}
    return estimate(as_file, None, habits, {}, given, read.cases)


def _judge(store: Store, spec: RunSpec, data: Path, read: GradedProofs, *, local: bool) -> Judged:
    expected = _estimate(spec, data, read)
    print(f"{spec.name}: {_in_words(expected)}", file=sys.stderr)
    collector = RowCollector(store, spec.name, spec.prices)
    drive = drive_here if local or load_settings().broker is None else drive_on_services
    with stopping_on_signal() as stopping, ProgressLine() as line:

        def report(progress: RunProgress) -> None:
            line.show(spec.name, progress)
            collector.look()

        drive(
            store,
            spec,
            stopping,
            report,
            resume=True,
            portions=list(portions(store, spec.name, read.cases)),
        )
    rule, rows = spec.labeling, collector.rows()
    figures = judge_figures(spec.name, rows, n=rule.n, k=rule.k, has_meta=bool(rule.m))
    return Judged(spec, rows, figures)


def _in_words(expected: RunEstimate) -> str:
    calls = [sum(getattr(role.calls, end) for role in expected.roles) for end in ("low", "high")]
    tokens = (expected.tokens.low, expected.tokens.high)
    text = (
        f"{expected.problems} proofs, {calls[0]:,.0f} to {calls[1]:,.0f} calls,"
        f" {tokens[0]:,.0f} to {tokens[1]:,.0f} tokens"
    )
    money = expected.money
    return f"{text}, cost {money.low:,.2f} to {money.high:,.2f}" if money else text


def _print_attacks(judged: Sequence[Judged], read: GradedProofs, *, as_json: bool) -> None:
    """Print what each kind of attack achieved, and what the parser stopped."""
    found = []
    for one in judged:
        spec, rule = one.spec, one.spec.labeling
        pack = load_pack(spec.prompts, spec.base)
        attacks = attack_figures(one.rows, n=rule.n, k=rule.k, has_meta=bool(rule.m))
        on_parser = parser_figures(read.cases, pack, spec.how_to_read)
        found.append((spec.name, pack.fenced, list(attacks), list(on_parser)))
    if as_json:
        runs = [
            {
                "run_id": name,
                "fenced": fenced,
                "attacks": [each.model_dump(mode="json") for each in attacks],
                "on_parser": [each.model_dump(mode="json") for each in on_parser],
            }
            for name, fenced, attacks, on_parser in found
        ]
        print(json.dumps({"skipped": read.skipped, "runs": runs}, indent=2))
        return
    for name, fenced, attacks, on_parser in found:
        emit(list(attack_rows(attacks)), as_json=False, title=f"{name}: attacks that succeed")
        title = "what fences and parsing let pass, before any model"
        title += "" if fenced else " (this prompt pack has no fences)"
        emit([each.model_dump() for each in on_parser], as_json=False, title=title)


def _print(judged: Sequence[Judged], read: GradedProofs, *, as_json: bool) -> None:
    if as_json:
        found = [one.figures.model_dump(mode="json") for one in judged]
        print(json.dumps({"skipped": read.skipped, "runs": found}, indent=2))
        return
    for title, table in figure_rows([one.figures for one in judged]):
        emit(table, as_json=False, title=title)
