"""Reads the data of a curriculum's report from the store: its stages, training steps and figures.

An enhanced stage trains two models. The refresh steps of its meta-verifier have separate names in
the store; the report draws them between the verifier's steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from proofloop.config.curriculum_file import SAMPLED, CurriculumSpec, GrpoStage
from proofloop.curriculum.status import (
    StageManifest,
    Status,
    all_figures,
    manifests,
    read_status,
    runs_of,
    training_steps,
)
from proofloop.report.data import Summary
from proofloop.report.numbers import count
from proofloop.report.titles import FIGURES, FigureTexts
from proofloop.report.verdict import headline, sentence
from proofloop.runs.figures import Figure
from proofloop.schema.records import ModelRole, TrainingStep
from proofloop.store import Store

_NAMED = {figure.name: figure for figure in FIGURES}
CHARTED: dict[tuple[str, str], FigureTexts] = {
    ("generator", "pass_at_1"): _NAMED["pass_at_1"],
    ("generator", "self_error"): _NAMED["self_eval_error"],
    ("verifier", "accuracy"): _NAMED["verifier_accuracy"],
    ("verifier", "faithfulness"): _NAMED["verifier_faithfulness"],
    ("meta", "accuracy"): FigureTexts(
        "", "Meta-verifier accuracy", "", "share of analyses that get their true quality"
    ),
    ("labels", "agreement"): _NAMED["label_agreement"],
    ("labels", "undecided"): _NAMED["label_undecided"],
    ("generator", "judged_score"): FigureTexts(
        "", "Judged score", "", "mean score of its proofs by the last judges"
    ),
    ("generator", "judged_self_error"): FigureTexts(
        "",
        "Judged self-evaluation error",
        "",
        "mean distance of its self-scores from the last judges' scores",
        lower_is_better=True,
    ),
    ("verifier", "judged_quality"): FigureTexts(
        "", "Judged quality", "", "R_meta of critiques that report an issue"
    ),
}
"""The measured figures that get a chart, by measured role and figure name. The tables show all
figures.
"""


@dataclass(frozen=True)
class Track:
    """The training steps of one model in a stage, each with its position on the stage's axis.

    `name`: empty, an ablation's name, or "refresh". `planned_steps`: those of the stage.
    """

    stage: str
    name: str
    role: ModelRole
    steps: tuple[tuple[float, TrainingStep], ...]
    planned_steps: int

    @property
    def title(self) -> str:
        return f"{self.stage} {self.name}".strip()


@dataclass(frozen=True)
class CurriculumData:
    """All data of the page.

    `figures`: by version and measured role, as in all_figures, in the order of the stages.
    `labeling_runs`: the runs with the proofs, critiques and labels of the labeling stages.
    """

    spec: CurriculumSpec
    written: date
    now: Status
    finished: Mapping[str, StageManifest]
    tracks: tuple[Track, ...]
    figures: Mapping[tuple[str, str], Mapping[str, Figure]]
    labeling_runs: tuple[str, ...]


def read_curriculum(
    store: Store, spec: CurriculumSpec, *, written: date | None = None
) -> CurriculumData:
    """Read a curriculum, finished or not."""
    return CurriculumData(
        spec=spec,
        written=written or date.today(),
        now=read_status(store, spec),
        finished=manifests(store, spec),
        tracks=tuple(_tracks(store, spec)),
        figures=_in_order(spec, all_figures(store, spec.name)),
        labeling_runs=tuple(_labeling_runs(store, spec)),
    )


def _tracks(store: Store, spec: CurriculumSpec) -> Iterator[Track]:
    taken = training_steps(store, spec)
    for stage in spec.stages:
        if stage.kind in SAMPLED:
            section: GrpoStage = getattr(spec, stage.kind)
            name = f"{stage.iteration}-{stage.kind}"
            placed = tuple((float(step.step), step) for step in taken.get(stage.name, ()))
            yield Track(name, stage.ablation or "", SAMPLED[stage.kind], placed, section.steps)
            if refreshes := tuple(_refreshes(spec, f"{stage.name}-refresh-", taken)):
                yield Track(name, "refresh", "meta_verifier", refreshes, section.steps)


def _refreshes(
    spec: CurriculumSpec, prefix: str, taken: Mapping[str, Sequence[TrainingStep]]
) -> Iterator[tuple[float, TrainingStep]]:
    """Refresh round r starts at the stage's step r * refresh; its steps are spread evenly up to the
    next round.
    """
    every = spec.enhanced.refresh
    planned = max(1, spec.enhanced.refresh_steps)
    rounds = sorted(int(name.removeprefix(prefix)) for name in taken if name.startswith(prefix))
    for number in rounds:
        for step in taken[f"{prefix}{number}"]:
            yield (number + step.step / planned) * every, step


def _in_order(
    spec: CurriculumSpec, found: Mapping[str, Mapping[str, Figure]]
) -> dict[tuple[str, str], Mapping[str, Figure]]:
    """Sort figures by stage: the start model first, a refreshed meta-verifier after its stage's own
    versions.
    """
    places = {stage.name: place for place, stage in enumerate(spec.stages)}
    by_name: dict[tuple[str, str], Mapping[str, Figure]] = {}
    for name, figures in found.items():
        version, _, measured = name.rpartition("/")
        by_name[version, measured] = figures

    def stage_place(name: tuple[str, str]) -> tuple[int, tuple[str, str]]:
        return places.get(_stage_of(name[0]), -1), name

    return {name: by_name[name] for name in sorted(by_name, key=stage_place)}


def _stage_of(version: str) -> str:
    return version.removesuffix("-refreshed")


def _labeling_runs(store: Store, spec: CurriculumSpec) -> Iterator[str]:
    labeling = tuple(f"{spec.name}-{stage.name}-" for stage in spec.stages if stage.kind == "label")
    for run in runs_of(store, spec.name):
        if labeling and run.startswith(labeling):
            yield run


def ablated(spec: CurriculumSpec) -> set[str]:
    """The names of the ablation stages, whose versions never serve."""
    return {stage.name for stage in spec.stages if stage.ablation}


def curriculum_verdict(data: CurriculumData) -> str:
    """The result in one sentence: how the first and last measured versions differ, or else the
    progress.
    """
    if moved := headline(_summary(data)):
        return sentence(moved)
    now = data.now
    if now.running is None:
        return sentence(f"all {now.stages} stages are done")
    steps = ""
    if now.steps:
        planned = f" of its {count(now.planned_steps)}" if now.planned_steps else ""
        steps = f", {count(now.steps)}{planned} steps taken"
    return sentence(f"{now.done} of {now.stages} stages are done; {now.running} is next{steps}")


def _summary(data: CurriculumData) -> Summary:
    """Each figure of the first and the last version that have it. Figures of a single version are
    left out.
    """
    before: dict[str, Figure] = {}
    after: dict[str, Figure] = {}
    for (what, name), meaning in CHARTED.items():
        found = _of_served_versions(data, what, name)
        if len(found) > 1 and meaning.name:
            before[meaning.name] = found[0]
            after[meaning.name] = found[-1]
    return Summary(None, before, after)


def _of_served_versions(data: CurriculumData, what: str, name: str) -> list[Figure]:
    """A figure of all versions that have it, in order, without ablations."""
    return [
        figures[name]
        for (version, measured), figures in data.figures.items()
        if measured == what and name in figures and version not in ablated(data.spec)
    ]
