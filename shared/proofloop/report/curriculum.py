"""Gathers what the page of a curriculum shows: its stages, what each training step saw, and what was measured.

What a stranger would get wrong: an enhanced stage trains two models. Its meta-verifier's refreshes are steps under
names of their own, and stand here beside the verifier's steps that they came between.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from proofloop import keys
from proofloop.curriculum import SAMPLED, CurriculumSpec, GrpoStage
from proofloop.measure import Figure
from proofloop.records import ModelRole, TrainingStep
from proofloop.report.data import Measured, Summary
from proofloop.report.wording import FIGURES, count, headline, sentence
from proofloop.report.wording import Figure as Meaning
from proofloop.standing import StageManifest, Standing, all_figures, manifests, standing
from proofloop.store import Store, get_record

_NAMED = {figure.name: figure for figure in FIGURES}
CHARTED: dict[tuple[str, str], Meaning] = {
    ("generator", "pass_at_1"): _NAMED["pass_at_1"],
    ("generator", "self_error"): _NAMED["self_eval_error"],
    ("verifier", "accuracy"): _NAMED["verifier_accuracy"],
    ("verifier", "faithfulness"): _NAMED["verifier_faithfulness"],
    ("meta", "accuracy"): Meaning("", "Meta-verifier accuracy", "", "analyses that get their true quality"),
    ("labels", "agreement"): _NAMED["label_agreement"],
    ("labels", "undecided"): _NAMED["label_undecided"],
    ("generator", "judged_score"): Meaning("", "Judged score", "", "mean score that the last judges give its proofs"),
    ("generator", "judged_self_error"): Meaning(
        "", "Judged self-evaluation error", "", "mean distance of its own scores from theirs", lower_is_better=True
    ),
    ("verifier", "judged_quality"): Meaning("", "Judged quality", "", "R_meta of critiques that report an issue"),
}
"""The measured figures that get a chart, by what was measured and the figure's name there; the tables have them all."""


@dataclass(frozen=True)
class Track:
    """Steps of one model, each at its place among those of its stage. `name`: empty, an ablation's, or "refresh"."""

    stage: str
    name: str
    role: ModelRole
    steps: tuple[tuple[float, TrainingStep], ...]
    wanted: int

    @property
    def title(self) -> str:
        return f"{self.stage} {self.name}".strip()


@dataclass(frozen=True)
class CurriculumData:
    """Everything the page shows. `figures`: by version and what was measured, as in all_figures, in stages' order.

    `walks`: the runs in which the labelling stages' proofs, critiques and labels lie.
    """

    spec: CurriculumSpec
    written: date
    now: Standing
    finished: Mapping[str, StageManifest]
    tracks: tuple[Track, ...]
    figures: Mapping[tuple[str, str], Mapping[str, Figure]]
    walks: tuple[str, ...]


def read_curriculum(store: Store, spec: CurriculumSpec, *, written: date | None = None) -> CurriculumData:
    """Read a curriculum, however far it is."""
    return CurriculumData(
        spec=spec,
        written=written or date.today(),
        now=standing(store, spec),
        finished=manifests(store, spec),
        tracks=tuple(_tracks(store, spec)),
        figures=_in_order(spec, all_figures(store, spec.name)),
        walks=tuple(_walks(store, spec)),
    )


def _tracks(store: Store, spec: CurriculumSpec) -> Iterator[Track]:
    taken: dict[str, list[TrainingStep]] = defaultdict(list)
    for key in store.list(keys.all_steps(spec.name)):
        taken[key.removeprefix(keys.all_steps(spec.name)).rpartition("/")[0]].append(
            get_record(store, key, TrainingStep)
        )
    for stage in spec.stages:
        if stage.kind in SAMPLED:
            section: GrpoStage = getattr(spec, stage.kind)
            name, steps = f"{stage.iteration}-{stage.kind}", taken[stage.name]
            placed = tuple((float(step.step), step) for step in steps)
            yield Track(name, stage.ablation or "", SAMPLED[stage.kind], placed, section.steps)
            if refreshes := tuple(_refreshes(spec, f"{stage.name}-refresh-", taken)):
                yield Track(name, "refresh", "meta_verifier", refreshes, section.steps)


def _refreshes(
    spec: CurriculumSpec, prefix: str, taken: Mapping[str, Sequence[TrainingStep]]
) -> Iterator[tuple[float, TrainingStep]]:
    """Round r comes after the stage's step r * refresh; its steps are spread over those to the next round."""
    every, wanted = spec.enhanced.refresh, max(1, spec.enhanced.refresh_steps)
    rounds = sorted(int(name.removeprefix(prefix)) for name in taken if name.startswith(prefix))
    for number in rounds:
        for step in taken[f"{prefix}{number}"]:
            yield (number + step.step / wanted) * every, step


def _in_order(
    spec: CurriculumSpec, found: Mapping[str, Mapping[str, Figure]]
) -> dict[tuple[str, str], Mapping[str, Figure]]:
    """A refreshed meta-verifier after its stage; the model that all began with first, whether it was trained or not."""
    places = {stage.name: place for place, stage in enumerate(spec.stages)}
    named = {(name.rpartition("/")[0], name.rpartition("/")[2]): figures for name, figures in found.items()}
    return dict(sorted(named.items(), key=lambda each: (places.get(_stage_of(each[0][0]), -1), each[0])))


def _stage_of(version: str) -> str:
    return version.removesuffix("-refreshed")


def _walks(store: Store, spec: CurriculumSpec) -> Iterator[str]:
    begun = tuple(f"{keys.SPECS}{spec.name}-{stage.name}-" for stage in spec.stages if stage.kind == "label")
    for key in store.list(keys.SPECS):
        if begun and key.startswith(begun):
            yield key.removeprefix(keys.SPECS).removesuffix(".json")


def ablated(spec: CurriculumSpec) -> set[str]:
    """The stages that stand beside what they ablate and never serve."""
    return {stage.name for stage in spec.stages if stage.ablation}


def curriculum_verdict(data: CurriculumData) -> str:
    """What came of it in one sentence: how the first and the last measured version differ, else how far it is."""
    if moved := headline(_summary(data)):
        return sentence(moved)
    now = data.now
    if now.running is None:
        return sentence(f"all {now.stages} stages are done")
    steps = f", {count(now.steps)} of its {count(now.steps_wanted)} steps taken" if now.steps else ""
    return sentence(f"{now.done} of {now.stages} stages are done; {now.running} is next{steps}")


def _summary(data: CurriculumData) -> Summary:
    """The first and the last version that a figure was measured of; a figure of one version says nothing."""
    before, after = dict[str, Measured](), dict[str, Measured]()
    for (what, name), meaning in CHARTED.items():
        lasting = [
            Measured(**found[name].model_dump())
            for (version, of), found in data.figures.items()
            if of == what and name in found and version not in ablated(data.spec)
        ]
        if len(lasting) > 1 and meaning.name:
            before[meaning.name], after[meaning.name] = lasting[0], lasting[-1]
    return Summary(None, before, after)
