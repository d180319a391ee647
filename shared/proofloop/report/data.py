"""Gathers what a report shows from the store, in one pass over the proofs; how it looks is decided elsewhere.

What a stranger would get wrong: the store lists proofs by name, not by time. A run's order is that of its problems.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, get_args

from proofloop import keys
from proofloop.answers import Readability, readability
from proofloop.costs import Bill, Costs, Tally, bills, spec_of
from proofloop.errors import ConfigError
from proofloop.models import Served, served_log
from proofloop.problems import problems_of
from proofloop.records import MODEL_ROLES, LabelKind, ModelRole, TrainedRole, TrainingStep
from proofloop.report.samples import Sample, SampleChoice, read_samples
from proofloop.rounds import refinements_posed
from proofloop.runspec import RunSpec
from proofloop.store import Store, get_record

KINDS: tuple[LabelKind, ...] = get_args(LabelKind)
MAX_WINDOWS = 40
"""Bars in the chart of label outcomes: as many as fit on a phone."""


@dataclass(frozen=True)
class Measured:
    """One measured figure with its 95 % interval; None where there was nothing to measure."""

    value: float | None
    low: float | None
    high: float | None
    cases: int


@dataclass(frozen=True)
class Summary:
    """The evaluation before and after a run, by the names of its figures."""

    seconds: float | None
    before: Mapping[str, Measured]
    after: Mapping[str, Measured]


@dataclass(frozen=True)
class Window:
    """The label kinds of the problems number `first` to `last` of the run, counted from 1."""

    first: int
    last: int
    counts: Mapping[LabelKind, int]


@dataclass(frozen=True)
class VersionInService:
    """A model version, why it was put in service, the calls it answered, and the first problem it was asked about.

    `reason` is empty for a name that answered and was never put in service: some servers have names of their own.
    `servers`: which model at which server gave how many of the answers, where one was asked.
    """

    version: str
    reason: str
    calls: int
    first_problem: int | None
    servers: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class ReportData:
    """Everything a report shows.

    `planned` proofs: None where the run's problem file is not at hand. `failed_proofs`: not one answer.
    """

    run_id: str
    written: date
    spec: RunSpec
    summary: Summary | None
    planned: int | None
    costs: Costs
    kinds: Mapping[LabelKind, int]
    windows: tuple[Window, ...]
    steps: Mapping[TrainedRole, tuple[TrainingStep, ...]]
    versions: Mapping[ModelRole, tuple[VersionInService, ...]]
    samples: tuple[Sample, ...]
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
    """Read a run, finished or not; `summary` as in `summary.json`. Raises ConfigError if there is no such run.

    `dead_letters`: how many there are, where somebody knows of more than the store's.
    """
    spec = spec_of(store, run_id)
    order = _order(spec)
    planned = len(order) * spec.problems.proofs_per_problem + refinements_posed(store, spec) if order else None
    served = {role: _served(store, spec, role) for role in MODEL_ROLES}
    tally, windows, use = Tally(spec.prices), Windows(), VersionUse()
    choice = SampleChoice([line.version for line in served["generator"]])
    failed_proofs = 0
    for bill in bills(store, run_id):
        number = order.setdefault(bill.problem_id, len(order) + 1)
        tally.add(bill)
        windows.add(number, bill)
        use.add(number, bill)
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
        steps={role: _steps(store, run_id, role) for role in spec.training.roles},
        versions={role: use.of(role, log) for role, log in served.items()},
        samples=read_samples(store, spec, choice.chosen()),
        failed_proofs=failed_proofs,
        dead_letters=sum(1 for _ in store.list(keys.dead_letters(run_id))) if dead_letters is None else dead_letters,
        readability=readability(store, run_id),
    )


def read_summary(fields: Mapping[str, Any]) -> Summary:
    """Read the mapping of `summary.json`; a figure that is not there is not shown."""
    before, after = (_measured(fields.get(side) or {}) for side in ("before", "after"))
    return Summary(fields.get("seconds"), before, after)


def _measured(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, Measured]:
    return {
        name: Measured(figure.get("value"), figure.get("low"), figure.get("high"), int(figure.get("cases") or 0))
        for name, figure in figures.items()
        if isinstance(figure, Mapping)
    }


def _order(spec: RunSpec) -> dict[str, int]:
    """The number of each problem in the run, from 1.

    Empty where its problem file is not at hand: then the store's order stands in.
    """
    try:
        return {problem.id: number for number, problem in enumerate(problems_of(spec), 1)}
    except ConfigError:
        return {}


def _steps(store: Store, run_id: str, role: TrainedRole) -> tuple[TrainingStep, ...]:
    return tuple(get_record(store, key, TrainingStep) for key in store.list(keys.steps(run_id, role)))


def _served(store: Store, spec: RunSpec, role: ModelRole) -> list[Served]:
    """The versions that were put in service, after the one that the run began with."""
    return [Served(version=spec.model_of(role), reason="the run began with it"), *served_log(store, spec.name, role)]


class Windows:
    """Counts label kinds over stretches of the run, which double in width whenever there would be too many."""

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
        return tuple(
            Window(index * self._width + 1, (index + 1) * self._width, {kind: counts[kind] for kind in KINDS})
            for index, counts in sorted(self._counts.items())
        )

    def _double(self) -> None:
        merged: dict[int, Counter[LabelKind]] = defaultdict(Counter)
        for index, counts in self._counts.items():
            merged[index // 2] += counts
        self._width, self._counts = self._width * 2, merged


class VersionUse:
    """How many calls each model version answered, and the lowest number of a problem it was asked about."""

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

    def of(self, role: ModelRole, log: Sequence[Served]) -> tuple[VersionInService, ...]:
        """The log with its use; then what answered under a name that is not in the log."""
        logged = {line.version for line in log}
        others = sorted(version for known, version in self._calls if known == role and version not in logged)
        lines = [(line.version, line.reason) for line in log] + [(name, "") for name in others]
        return tuple(
            VersionInService(
                version,
                reason,
                self._calls[role, version],
                self._first.get((role, version)),
                tuple(self._servers[role, version].most_common()),
            )
            for version, reason in lines
        )
