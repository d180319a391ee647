"""What `proofloop iterate` does: one TOML file, and the stages that follow from it.

The stages of an iteration (section 3.1 of the paper): a cold start, then the verifier, the meta-verifier, the enhanced
verifier, the generator from its checkpoint, labels for the generator's new proofs, and one model that consolidates all
roles. The next iteration begins with that model. Each stage writes its manifest last: what has one is not done again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from proofloop import keys
from proofloop.domains import prompts_of
from proofloop.errors import ConfigError
from proofloop.records import ModelRole
from proofloop.rewards import PAPER_ALPHA, PAPER_BETA
from proofloop.runspec import (
    EngineSection,
    Labeling,
    Prices,
    RoleSampling,
    SamplingSection,
    Section,
    check_loads_versions,
    explain,
    read_fields,
)

StageKind = Literal[
    "cold_start", "verifier", "meta_verifier", "enhanced", "generator", "label", "consolidate", "measure"
]
Ablation = Literal["no-meta", "no-self"]
ITERATION: tuple[StageKind, ...] = ("verifier", "meta_verifier", "enhanced", "generator", "label", "consolidate")
LATER_ITERATION: tuple[StageKind, ...] = ("enhanced", "generator", "label", "consolidate")
"""The consolidated model verifies and meta-verifies already: its verifier goes on with R_meta at once."""

ABLATED: dict[Ablation, StageKind] = {"no-meta": "enhanced", "no-self": "generator"}


class Files(Section):
    """Your problems, and D_v and D_mv as people graded them, where no domain poses and no checker grades.

    JSON or JSONL, relative to the curriculum's file. Rows of `problems` are a run file's; of `proofs` question,
    solution and score; of `analyses` question, solution, analysis and quality. Of all questions 8 in 10 are for
    training, one for the gate, one for measuring: a question's digest says which.
    """

    problems: Path = Field(strict=False)
    proofs: Path = Field(strict=False)
    analyses: Path | None = Field(None, strict=False)


class ColdStart(Section):
    """Supervised steps on the domain's demonstrations, before anything is learnt by reward; 0 steps: none."""

    steps: int = Field(600, ge=0)
    batch: int = Field(48, ge=1)
    learning_rate: float = Field(1.5e-3, gt=0)


class Data(Section):
    """How large D_v and D_mv are at most. `temperatures`: what their proofs and analyses are sampled at, each in turn.

    `validation`: cases of the validation split that the gate measures on. Of files only `proofs`, `analyses` and
    `validation` count.
    """

    problems: int = Field(2000, ge=2)
    proofs: int = Field(2000, ge=2)
    analyses: int = Field(2400, ge=2)
    temperatures: tuple[float, ...] = Field((1.0, 1.25), min_length=1, strict=False)
    analysis_temperatures: tuple[float, ...] = Field((1.0, 1.5), min_length=1, strict=False)
    validation: int = Field(300, ge=2)


class GrpoStage(Section):
    """One stage of GRPO: `steps` of `groups` prompts with `samples` answers each; 0 steps: no such stage.

    `settings` are GRPO's own. The step size falls to a tenth until the stage's end, unless they have another
    `decay_steps`.
    """

    steps: int = Field(ge=0)
    groups: int = Field(32, ge=1)
    samples: int = Field(8, ge=2)
    settings: dict[str, Any] = Field(default_factory=dict)


class VerifierStage(GrpoStage):
    """The verifier, by its score alone."""

    steps: int = Field(24, ge=0)


class MetaVerifierStage(GrpoStage):
    """The meta-verifier, by the quality it gives."""

    steps: int = Field(20, ge=0)
    groups: int = Field(48, ge=1)


class EnhancedStage(GrpoStage):
    """The verifier with R_meta, on D_v and D_mv together. `meta_groups`: how many of the groups are of D_mv.

    Every `refresh` steps D_mv gets analyses of the newest verifier, and the meta-verifier takes `refresh_steps` on it;
    not where [files] hold the grades, for nobody is there to grade new ones.
    """

    steps: int = Field(50, ge=0)
    groups: int = Field(36, ge=1)
    meta_groups: int = Field(12, ge=0)
    refresh: int = Field(8, ge=1)
    refresh_steps: int = Field(8, ge=0)

    @model_validator(mode="after")
    def _both_kinds(self) -> EnhancedStage:
        if self.steps and self.meta_groups >= self.groups:
            raise ValueError(f"meta_groups = {self.meta_groups} leaves none of groups = {self.groups} to D_v")
        return self


class GeneratorStage(GrpoStage):
    """The generator, rewarded by the judges alone: `critiques` a proof, `metas` an issue."""

    steps: int = Field(40, ge=0)
    critiques: int = Field(4, ge=1)
    metas: int = Field(3, ge=1)
    alpha: float = Field(PAPER_ALPHA, ge=0, le=1)
    beta: float = Field(PAPER_BETA, ge=0, le=1)


class Labels(Section):
    """New proofs get labels from the judges alone: of how many problems, and by which rule.

    `earlier`: the generator that served before this iteration's writes as many proofs, for the newest one makes few
    mistakes to learn from.
    """

    problems: int = Field(256, ge=1)
    earlier: bool = True
    proofs_per_problem: int = Field(2, ge=1)
    rule: Labeling = Labeling(n=8, m=3, k=2)


class Consolidate(Section):
    """Rejection fine-tuning: of every role's answers to `prompts` prompts, those that earned `keep` or more.

    `tokens_per_pass`: padded tokens in one forward pass; memory and speed, not the loss.
    """

    prompts: int = Field(600, ge=1)
    samples: int = Field(4, ge=1)
    keep: float = Field(0.99, ge=0, le=1)
    epochs: int = Field(1, ge=1)
    batch: int = Field(64, ge=1)
    learning_rate: float = Field(2e-4, gt=0)
    tokens_per_pass: int = Field(16384, ge=1)


class Gate(Section):
    """A version is promoted unless it is worse than the one before on the validation split by more than the noise.

    `z`: how many standard errors of the paired difference count as noise.
    """

    z: float = Field(1.96, ge=0)


class Watch(Section):
    """What stops a stage, as means over the last `window` steps: signs that a reward is gamed and not earned.

    `format`: the least share of readable answers. `shorter`, `longer`: how far the answers' length may move from that
    of the first steps, as a factor. `same_score`: the largest share of one score among a judge's answers, where its
    cases are balanced.
    """

    window: int = Field(5, ge=1)
    format: float = Field(0.8, ge=0, le=1)
    shorter: float = Field(0.4, gt=0, le=1)
    longer: float = Field(2.5, ge=1)
    same_score: float = Field(0.9, gt=0, le=1)


SAMPLED: dict[StageKind, ModelRole] = {
    "verifier": "verifier",
    "meta_verifier": "meta_verifier",
    "enhanced": "verifier",
    "generator": "generator",
}
"""The stages of GRPO, and whose answers they train on."""

ENGINE_MEMORY = {"max_batch", "models_kept", "prompt_tokens_kept", "threads", "tokens_per_pass"}
CHANGEABLE: dict[str, Any] = {
    "base": True,
    "engine": {"settings": ENGINE_MEMORY},
    **{kind: {"settings": {"tokens_per_pass"}} for kind in SAMPLED},
    "consolidate": True,
    "watch": True,
}
"""What may be said anew of a curriculum that began, for days of work hang on it: where files lie, what memory is used,
what stops a stage, and how a consolidation is done. All else that is learnt by is frozen.
"""


class Stage(Section):
    """One stage. An ablation is measured and never served."""

    name: str
    kind: StageKind
    iteration: int
    ablation: Ablation | None = None


def _prompts(checked: dict[str, Any]) -> str:
    """The pack that fits the problems; of a wrong domain, which is not among what is checked, any."""
    return prompts_of(None if checked.get("files") else checked.get("domain"))


class CurriculumSpec(Section):
    """A whole curriculum. Without `prompts` a domain has its own pack, and files "math"."""

    name: str
    seed: int = 0
    domain: str = "nano"
    files: Files | None = None
    """In the place of a domain."""
    harder: str | None = None
    """A domain of harder problems: labelled beside the others, half of the generator's problems from iteration 2 on."""
    prompts: str = Field(default_factory=_prompts)
    start: str = "nano-base"
    iterations: int = Field(2, ge=1, le=16)
    ablations: tuple[Ablation, ...] = Field((), strict=False)
    engine: EngineSection = EngineSection()
    sampling: SamplingSection = SamplingSection()
    cold_start: ColdStart = ColdStart()
    data: Data = Data()
    verifier: VerifierStage = VerifierStage()
    meta_verifier: MetaVerifierStage = MetaVerifierStage()
    enhanced: EnhancedStage = EnhancedStage()
    generator: GeneratorStage = GeneratorStage()
    labels: Labels = Labels()
    consolidate: Consolidate = Consolidate()
    gate: Gate = Gate()
    watch: Watch = Watch()
    prices: Prices = Prices()
    measured: int = Field(256, ge=0)
    """Problems of the test split on which every version is measured at the end, and harder ones; 0: none."""
    base: Path = Field(Path(), strict=False)

    @model_validator(mode="after")
    def _ablations_are_stages(self) -> CurriculumSpec:
        if len(set(self.ablations)) < len(self.ablations):
            raise ValueError(f"ablations = {list(self.ablations)} names one twice: each is one stage")
        if "no-meta" in self.ablations and not self.enhanced.steps:
            raise ValueError("ablation no-meta needs steps in [enhanced]: it is that stage without R_meta")
        return self

    @model_validator(mode="after")
    def _one_temperature(self) -> CurriculumSpec:
        judges = self.sampling.verifier.temperature, self.sampling.meta_verifier.temperature
        if self.enhanced.steps and self.enhanced.meta_groups and len(set(judges)) > 1:
            raise ValueError(
                f"[sampling] verifier and meta_verifier have temperatures {judges[0]:g} and {judges[1]:g}: [enhanced]"
                " trains on answers of both, at one temperature"
            )
        return self

    @model_validator(mode="after")
    def _files_or_domain(self) -> CurriculumSpec:
        if self.files is None:
            return self
        if self.harder:
            raise ValueError("[files] and harder do not go together: problems come from one of them")
        if self.files.analyses is None and (self.meta_verifier.steps or self.enhanced.meta_groups):
            raise ValueError(
                "[files] analyses is missing: give it, or meta_verifier.steps = 0 and enhanced.meta_groups = 0"
            )
        return self

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What will be done, in this order."""
        return tuple(_stages(self))


def _stages(spec: CurriculumSpec) -> Iterator[Stage]:
    if spec.cold_start.steps and spec.files is None:
        yield Stage(name="0-cold_start", kind="cold_start", iteration=0)
    for iteration in range(1, spec.iterations + 1):
        for kind in ITERATION if iteration == 1 else LATER_ITERATION:
            section = getattr(spec, kind, None)
            if isinstance(section, GrpoStage) and not section.steps:
                continue
            yield Stage(name=f"{iteration}-{kind}", kind=kind, iteration=iteration)
            for ablation in spec.ablations if iteration == 1 else ():
                if ABLATED[ablation] == kind:
                    yield Stage(name=f"1-{kind}-{ablation}", kind=kind, iteration=1, ablation=ablation)
    if spec.measured:
        yield Stage(name="measure", kind="measure", iteration=spec.iterations)


def grpo_fields(spec: CurriculumSpec, kind: StageKind, steps: int | None = None) -> dict[str, Any]:
    """The GRPO settings of a kind of stage, unchecked: those of the file, and what follows from the rest of it.

    `steps`: how many it takes, where that is not what its section says.
    """
    section: GrpoStage = getattr(spec, kind)
    sampled: RoleSampling = getattr(spec.sampling, SAMPLED[kind])
    return {
        "seed": spec.seed,
        "decay_steps": (section.steps if steps is None else steps) or None,
        "temperature": sampled.temperature,
        **section.settings,
    }


def load_curriculum(file: Path) -> CurriculumSpec:
    """Read and check a curriculum's TOML file. Raises ConfigError."""
    try:
        spec = CurriculumSpec.model_validate(read_fields(file, CurriculumSpec))
    except ValidationError as error:
        raise explain(error, str(file), CurriculumSpec) from error
    keys.check_id(spec.name, f"name in {file}")
    if spec.files:
        _check_beside_files(spec.model_fields_set, file)
    check_loads_versions(spec.engine, "a curriculum", str(file))
    _check_keep(spec, file)
    return spec


def _check_beside_files(given: set[str], file: Path) -> None:
    """Raise ConfigError for keys that files make meaningless, or necessary."""
    if "domain" in given:
        raise ConfigError(f"domain and [files] in {file}: problems come from one of them", "leave one of them out")
    if "cold_start" in given:
        raise ConfigError(f"[cold_start] in {file}: [files] have no demonstrations", "start with an instructed model")
    if "start" not in given:
        raise ConfigError(
            f"start is missing in {file}: with [files] the first model is yours",
            "name one that follows instructions, as the engine knows it",
        )


def _check_keep(spec: CurriculumSpec, file: Path) -> None:
    """Raise ConfigError where a consolidation could keep no proof: it would unlearn the generator in silence."""
    keep, most = spec.consolidate.keep, spec.generator.alpha + spec.generator.beta
    if keep > most:
        raise ConfigError(
            f"[consolidate] keep = {keep:g} in {file} is more than any proof can earn: [generator] alpha + beta ="
            f" {most:g}",
            f"lower keep to less than {most:g}, or let alpha and beta add up to 1",
        )
