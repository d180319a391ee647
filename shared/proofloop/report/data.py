"""Reads the data of a run's report from the store, in one pass over the proofs. `page.py` renders
it.

The store lists proofs by name, not by time. Where the report shows a run's course, it uses the
order of the problems.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, get_args

from proofloop.config.problem_file import problems_of
from proofloop.config.run_file import RunSpec
from proofloop.errors import ConfigError
from proofloop.report.samples import ProofSample, SampleChoice, read_samples
from proofloop.runs.answers import Readability, readability
from proofloop.runs.costs import Bill, Costs, CostTally, bills, spec_of
from proofloop.runs.figures import Figure
from proofloop.runs.given import cases_of
from proofloop.runs.model_registry import ServedVersion, served_log
from proofloop.runs.planned import posed_proofs, steps_of
from proofloop.schema import keys
from proofloop.schema.ids import case_id
from proofloop.schema.records import MODEL_ROLES, LabelKind, ModelRole, TrainingStep
from proofloop.store import Store

KINDS: tuple[LabelKind, ...] = get_args(LabelKind)
MAX_WINDOWS = 40
"""The most bars in the chart of label outcomes: more do not fit on a phone."""


@dataclass(frozen=True)
class Summary:
    """The figures before and after a run, by name, and the run's duration."""

    seconds: float | None
    before: Mapping[str, Figure]
    after: Mapping[str, Figure]


@dataclass(frozen=True)
class Window:
    """The counts of each label kind for the run's problems number `first` to `last`, counted from
    1.
    """

    first: int
    last: int
    counts: Mapping[LabelKind, int]


@dataclass(frozen=True)
class VersionInService:
    """A model version: why it went into service, how many calls it answered, and the number of its
    first problem.

    `reason` is empty for a version that is not in the log, because some servers report another
    model name. `servers`: the number of answers of each model at each server, if known.
    """

    version: str
    reason: str
    calls: int
    first_problem: int | None
    servers: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class ReportData:
    """All data of a run's report.

    `planned`: the number of planned proofs, None if the run's problem file cannot be read.
      `failed_proofs`: the number of proofs for which the engine never answered.
    """

    run_id: str
    written: date
    spec: RunSpec
    summary: Summary | None
    planned: int | None
    costs: Costs
    kinds: Mapping[LabelKind, int]
    windows: tuple[Window, ...]
    steps: Mapping[str, Sequence[TrainingStep]]
    versions: Mapping[ModelRole, tuple[VersionInService, ...]]
    samples: tuple[ProofSample, ...]
    failed_proofs: int
    dead_letters: int
    readability: Readability


def read_report(
    store: Store,
    run_id: str,
    summary: Mapping[str, Any] | None = None,
    *,
    written: date | None = None,
    dead_letters: int | None = None,
) -> ReportData:
    """Read a run, finished or not. Raises ConfigError if there is no such run.

    `summary` has the form of `summary.json`. `dead_letters` is their number if the caller knows it,
    for example from the broker; by default those in the store are counted.
    """
    spec = spec_of(store, run_id)
    order = _order(store, spec)
    planned = None
    if order:
        planned = posed_proofs(store, spec)
    if dead_letters is None:
        dead_letters = sum(1 for _ in store.list(keys.dead_letters(run_id)))
    served = {role: _served(store, spec, role) for role in MODEL_ROLES}
    tally = CostTally(spec.prices)
    windows = Windows()
    use = VersionUse()
    choice = SampleChoice([line.version for line in served["generator"]])
    failed_proofs = 0
    for bill in bills(store, run_id):
        number = order.setdefault(bill.problem_id, len(order) + 1)
        tally.add(bill)
        windows.add(number, bill)
        use.add(number, bill)
        if bill.is_written:
            choice.add(bill)
            failed_proofs += bill.verdict.outcome == "engine_failed"
    return ReportData(
        run_id=run_id,
        written=written or date.today(),
        spec=spec,
        summary=read_summary(summary) if summary is not None else None,
        planned=planned,
        costs=tally.costs,
        kinds=windows.totals,
        windows=windows.read(),
        steps=steps_of(store, run_id, spec.training.roles),
        versions={role: use.of(role, log) for role, log in served.items()},
        samples=read_samples(store, spec, choice.chosen()),
        failed_proofs=failed_proofs,
        dead_letters=dead_letters,
        readability=readability(store, run_id),
    )


def read_summary(fields: Mapping[str, Any]) -> Summary:
    """Read the mapping of `summary.json`; missing figures are left out."""
    return Summary(
        seconds=fields.get("seconds"),
        before=_measured(fields.get("before") or {}),
        after=_measured(fields.get("after") or {}),
    )


def _measured(figures: Mapping[str, Any]) -> dict[str, Figure]:
    return {
        name: Figure(
            value=figure.get("value"),
            low=figure.get("low"),
            high=figure.get("high"),
            cases=int(figure.get("cases") or 0),
        )
        for name, figure in figures.items()
        if isinstance(figure, Mapping)
    }


def _order(store: Store, spec: RunSpec) -> dict[str, int]:
    """The number of each problem in the run, from 1.

    Empty if the problem file cannot be read. Then the caller numbers the problems in the order of
    the store.
    """
    if spec.problems.is_given:
        return {case_id(n): n + 1 for n, _ in enumerate(cases_of(store, spec.name))}
    try:
        return {problem.id: number for number, problem in enumerate(problems_of(spec), 1)}
    except ConfigError:
        return {}


def _served(store: Store, spec: RunSpec, role: ModelRole) -> list[ServedVersion]:
    """The version of the run file, then all versions that were put in service."""
    return [
        ServedVersion(version=spec.model_of(role), reason="named in the run file"),
        *served_log(store, spec.name, role),
    ]


class Windows:
    """Counts label kinds in windows of consecutive problems. The width doubles whenever there are
    too many windows.
    """

    def __init__(self) -> None:
        self._width = 1
        self._counts: dict[int, Counter[LabelKind]] = defaultdict(Counter)

    def add(self, number: int, bill: Bill) -> None:
        if bill.label is None:
            return
        while (number - 1) // self._width >= MAX_WINDOWS:
            self._double()
        self._counts[(number - 1) // self._width][bill.label.kind] += 1

    @property
    def totals(self) -> dict[LabelKind, int]:
        return {kind: sum(counts[kind] for counts in self._counts.values()) for kind in KINDS}

    def read(self) -> tuple[Window, ...]:
        return tuple(self._window(index) for index in sorted(self._counts))

    def _window(self, index: int) -> Window:
        counts = {kind: self._counts[index][kind] for kind in KINDS}
        return Window(index * self._width + 1, (index + 1) * self._width, counts)

    def _double(self) -> None:
        merged: dict[int, Counter[LabelKind]] = defaultdict(Counter)
        for index, counts in self._counts.items():
            merged[index // 2] += counts
        self._width *= 2
        self._counts = merged


class VersionUse:
    """Counts the calls that each model version answered, and keeps the number of its first
    problem.
    """

    def __init__(self) -> None:
        self._calls: Counter[tuple[ModelRole, str]] = Counter()
        self._first: dict[tuple[ModelRole, str], int] = {}
        self._servers: dict[tuple[ModelRole, str], Counter[str]] = defaultdict(Counter)

    def add(self, number: int, bill: Bill) -> None:
        for role, provenance in bill.calls:
            name = (role, provenance.model_version)
            self._calls[name] += 1
            self._first[name] = min(number, self._first.get(name, number))
            if provenance.served_by:
                self._servers[name][provenance.served_by] += 1

    def of(self, role: ModelRole, log: Sequence[ServedVersion]) -> tuple[VersionInService, ...]:
        """The role's logged versions with their use, then the versions that answered but are not in
        the log.
        """
        logged = {line.version for line in log}
        called = {version for caller, version in self._calls if caller == role}
        reasons = [(line.version, line.reason) for line in log]
        reasons += [(version, "") for version in sorted(called - logged)]
        return tuple(self._version(role, version, reason) for version, reason in reasons)

    def _version(self, role: ModelRole, version: str, reason: str) -> VersionInService:
        return VersionInService(
            version=version,
            reason=reason,
            calls=self._calls[role, version],
            first_problem=self._first.get((role, version)),
            servers=tuple(self._servers[role, version].most_common()),
        )
