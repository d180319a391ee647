"""What `proofloop iterate` does: one TOML file, and the stages that follow from it.

The stages of an iteration (section 3.1 of the paper): a cold start, then the verifier, the
meta-verifier, the enhanced verifier, the generator from its checkpoint, labels for the generator's
new proofs, and one model that consolidates all roles. The next iteration begins with that model.
Each stage writes its manifest last: what has one is not done again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from proofloop.config.explain import explain
from proofloop.config.run_file import (
    EnginePrices,
    EngineSection,
    Labeling,
    RoleSampling,
    SamplingSection,
    Section,
    check_loads_versions,
    read_fields,
)
from proofloop.errors import ConfigError
from proofloop.method.domains import domain_names, prompts_of
from proofloop.method.rewards import PAPER_ALPHA, PAPER_BETA
from proofloop.schema.ids import check_id
from proofloop.schema.records import ModelRole

StageKind = Literal[
    "cold_start",
    "verifier",
    "meta_verifier",
    "enhanced",
    "generator",
    "label",
    "consolidate",
    "measure",
]
Ablation = Literal["no-meta", "no-self"]
ITERATION: tuple[StageKind, ...] = (
    "verifier",
    "meta_verifier",
    "enhanced",
    "generator",
    "label",
    "consolidate",
)
LATER_ITERATION: tuple[StageKind, ...] = ("enhanced", "generator", "label", "consolidate")
"""The consolidated model verifies and meta-verifies already: its verifier goes on with R_meta at
once.
"""

CURRICULUM_FILE = "a curriculum's TOML file"

ABLATED: dict[Ablation, StageKind] = {"no-meta": "enhanced", "no-self": "generator"}


class Files(Section):
    """Your own problems, and the proofs and analyses that people graded (D_v, D_mv), instead of a
    domain.

    JSON or JSONL, with paths relative to the curriculum's file. 8 of 10 questions are for training,
    one for the gate, one for measuring; the digest of a question decides.
    """

    problems: Path = Field(
        strict=False, description="problems, in the rows of a run's problem file"
    )
    proofs: Path = Field(strict=False, description="D_v: rows of question, solution and score")
    analyses: Path | None = Field(
        None,
        strict=False,
        description="D_mv: rows of question, solution, analysis and quality; unset: there"
        " are no graded"
        " analyses",
    )


class ColdStart(Section):
    """Supervised steps on the domain's demonstrations, before the training by rewards."""

    steps: int = Field(600, ge=0, description="supervised steps; 0 leaves the stage out")
    batch: int = Field(48, ge=1, description="demonstrations in a step")
    learning_rate: float = Field(
        1.5e-3, gt=0, description="AdamW's largest learning rate, after a warm-up; then it falls"
    )


class Data(Section):
    """The sizes of D_v and D_mv, and their sampling temperatures.

    With [files], only `proofs`, `analyses` and `validation` are used.
    """

    problems: int = Field(
        2000, ge=2, description="problems for D_v; each gets one proof for each temperature"
    )
    proofs: int = Field(2000, ge=2, description="the most proofs in D_v, half of them flawed")
    analyses: int = Field(2400, ge=2, description="the most analyses in D_mv, balanced by quality")
    temperatures: tuple[float, ...] = Field(
        (1.0, 1.25),
        min_length=1,
        strict=False,
        description="sampling temperatures of D_v's proofs, used in turn",
    )
    analysis_temperatures: tuple[float, ...] = Field(
        (1.0, 1.5),
        min_length=1,
        strict=False,
        description="sampling temperatures of D_mv's analyses, used in turn",
    )
    validation: int = Field(
        300, ge=2, description="the most validation cases on which the gate compares versions"
    )


STEPS = "GRPO steps; 0 leaves the stage out"
GROUPS = "prompts in a step"


class GrpoStage(Section):
    """One GRPO stage. The learning rate falls to a tenth until its end, unless `settings` set
    `decay_steps`.
    """

    steps: int = Field(ge=0, description=STEPS)
    groups: int = Field(32, ge=1, description=GROUPS)
    samples: int = Field(8, ge=2, description="answers to each prompt: the group size")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="GRPO's settings, checked by the trainer"
    )


class VerifierStage(GrpoStage):
    """The verifier, rewarded by its scores only."""

    steps: int = Field(24, ge=0, description=STEPS)


class MetaVerifierStage(GrpoStage):
    """The meta-verifier, rewarded by its quality scores."""

    steps: int = Field(20, ge=0, description=STEPS)
    groups: int = Field(48, ge=1, description=GROUPS)


class EnhancedStage(GrpoStage):
    """The verifier with R_meta, on D_v and D_mv together.

    With [files] there are no refreshes, because no checker can grade new analyses.
    """

    steps: int = Field(50, ge=0, description=STEPS)
    groups: int = Field(36, ge=1, description=GROUPS)
    meta_groups: int = Field(
        12, ge=0, description="how many of the groups are from D_mv; fewer than `groups`"
    )
    refresh: int = Field(
        8,
        ge=1,
        description="steps between two refreshes, which add the newest verifier's analyses to D_mv",
    )
    refresh_steps: int = Field(8, ge=0, description="the meta-verifier's steps in a refresh")

    @model_validator(mode="after")
    def _both_kinds(self) -> EnhancedStage:
        if self.steps and self.meta_groups >= self.groups:
            raise ValueError(
                f"meta_groups = {self.meta_groups} leaves none of groups = {self.groups} for D_v"
            )
        return self


class GeneratorStage(GrpoStage):
    """The generator, rewarded only by the verifier and the meta-verifier, eq. (5)."""

    steps: int = Field(40, ge=0, description=STEPS)
    critiques: int = Field(4, ge=1, description="critiques of each proof; their mean score is R_Y")
    metas: int = Field(
        3, ge=1, description="meta-critiques of each self-evaluation that reports an issue"
    )
    alpha: float = Field(
        PAPER_ALPHA, ge=0, le=1, description="weight of R_Y, the proof's score by the verifier"
    )
    beta: float = Field(
        PAPER_BETA, ge=0, le=1, description="weight of R_Z, the reward of the self-evaluation"
    )


class Labels(Section):
    """New proofs, labeled only by the verifier and the meta-verifier.

    The previous generator writes some of them, because the newest makes few mistakes to learn from.
    """

    problems: int = Field(256, ge=1, description="new problems, and as many of `harder`")
    earlier: bool = Field(True, description="whether the previous generator writes as many proofs")
    proofs_per_problem: int = Field(2, ge=1, description="proofs for each problem and generator")
    rule: Labeling = Labeling(n=8, m=3, k=2)


class Consolidate(Section):
    """Rejection fine-tuning on the best answers of all roles."""

    prompts: int = Field(600, ge=1, description="the most prompts for each role")
    samples: int = Field(4, ge=1, description="answers to each prompt")
    keep: float = Field(0.99, ge=0, le=1, description="the least reward of an answer to train on")
    epochs: int = Field(1, ge=1, description="passes over the answers")
    batch: int = Field(64, ge=1, description="answers in an optimizer update")
    learning_rate: float = Field(2e-4, gt=0, description="AdamW's learning rate; falls to a tenth")
    tokens_per_pass: int = Field(
        16384,
        ge=1,
        description="padded tokens in a forward pass: sets memory and speed, not the loss",
    )


class Gate(Section):
    """A version is promoted unless it is worse than its predecessor on the validation split by more
    than the noise.
    """

    z: float = Field(
        1.96, ge=0, description="the noise, in standard errors of the paired difference"
    )


class Watch(Section):
    """The limits that stop a stage, since exceeding them is a sign of reward hacking."""

    window: int = Field(5, ge=1, description="the last steps over whose means the limits hold")
    format: float = Field(0.8, ge=0, le=1, description="the least share of readable answers")
    shorter: float = Field(
        0.4, gt=0, le=1, description="the least length of answers, relative to the first steps"
    )
    longer: float = Field(
        2.5, ge=1, description="the largest length of answers, relative to the first steps"
    )
    same_score: float = Field(
        0.9, gt=0, le=1, description="the largest share of one score among a judge's answers"
    )


SAMPLED: dict[StageKind, ModelRole] = {
    "verifier": "verifier",
    "meta_verifier": "meta_verifier",
    "enhanced": "verifier",
    "generator": "generator",
}
"""The GRPO stages, and the role whose answers each trains on."""

ENGINE_MEMORY = {"max_batch", "models_kept", "prompt_tokens_kept", "threads", "tokens_per_pass"}
CHANGEABLE: dict[str, Any] = {
    "base": True,
    "engine": {"settings": ENGINE_MEMORY},
    **{kind: {"settings": {"tokens_per_pass"}} for kind in SAMPLED},
    "consolidate": True,
    "watch": True,
}
"""The settings that may change after a curriculum was started: file locations, memory, the limits
that stop a stage, and the consolidation. All other settings that affect learning are frozen.
"""


class Stage(Section):
    """One stage. An ablation is measured and never served."""

    name: str
    kind: StageKind
    iteration: int
    ablation: Ablation | None = None


def _prompts(checked: dict[str, Any]) -> str:
    """The prompt pack for the problems; for an invalid domain, which is reported elsewhere, any."""
    return prompts_of(None if checked.get("files") else checked.get("domain"))


class CurriculumSpec(Section):
    """The whole curriculum."""

    name: str = Field(description="the curriculum's name in the store and for `proofloop runs`")
    seed: int = Field(0, description="the random seed; `--seed` overrides it")
    domain: str = Field(
        "nano", description="the domain that poses problems and whose checker replaces graders"
    )
    files: Files | None = Field(
        None, description="your own problems and grades, instead of a domain"
    )
    harder: str | None = Field(
        None,
        description="a domain of hard problems: labels from iteration 1 on, half of the generator's"
        " problems from 2 on",
    )
    prompts: str = Field(
        default_factory=_prompts,
        description="the prompt pack; a domain has its own, and files have `math`",
    )
    start: str = Field(
        "nano-base", description="the model that all roles start with; required with [files]"
    )
    iterations: int = Field(2, ge=1, le=16, description="how many times the stages are repeated")
    ablations: tuple[Ablation, ...] = Field(
        (),
        strict=False,
        description="additional stages in iteration 1 for comparison; their versions never serve",
    )
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
    prices: EnginePrices = EnginePrices()
    measured: int = Field(
        256,
        ge=0,
        description="test problems on which all versions are measured at the end, and as many of"
        " `harder`;"
        " 0: none",
    )
    base: Path = Field(Path(), strict=False)

    @model_validator(mode="after")
    def _ablations_are_stages(self) -> CurriculumSpec:
        if len(set(self.ablations)) < len(self.ablations):
            raise ValueError(f"ablations = {list(self.ablations)} names one twice; name each once")
        if "no-meta" in self.ablations and not self.enhanced.steps:
            raise ValueError(
                "ablation no-meta needs steps in [enhanced]: it is that stage without R_meta"
            )
        return self

    @model_validator(mode="after")
    def _one_temperature(self) -> CurriculumSpec:
        judges = self.sampling.verifier.temperature, self.sampling.meta_verifier.temperature
        if self.enhanced.steps and self.enhanced.meta_groups and len(set(judges)) > 1:
            raise ValueError(
                f"[sampling] verifier and meta_verifier have temperatures {judges[0]:g} and"
                f" {judges[1]:g}: [enhanced]"
                " trains on answers of both, at one temperature"
            )
        return self

    @model_validator(mode="after")
    def _files_or_domain(self) -> CurriculumSpec:
        if self.files is None:
            return self
        if self.harder:
            raise ValueError(
                "[files] and harder do not go together: problems come from one of them"
            )
        if self.files.analyses is None and (self.meta_verifier.steps or self.enhanced.meta_groups):
            raise ValueError(
                "[files] analyses is missing: give it, or meta_verifier.steps = 0 and"
                " enhanced.meta_groups = 0"
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
                    yield Stage(
                        name=f"1-{kind}-{ablation}", kind=kind, iteration=1, ablation=ablation
                    )
    if spec.measured:
        yield Stage(name="measure", kind="measure", iteration=spec.iterations)


def grpo_fields(spec: CurriculumSpec, kind: StageKind, steps: int | None = None) -> dict[str, Any]:
    """The GRPO settings of a kind of stage, unchecked: those of the file, and what follows from the
    rest of it.

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
        spec = CurriculumSpec.model_validate(read_fields(file, CurriculumSpec, CURRICULUM_FILE))
    except ValidationError as error:
        raise explain(error, str(file), CurriculumSpec) from error
    check_id(spec.name, f"name in {file}")
    for key, domain in (("domain", spec.domain), ("harder", spec.harder)):
        if domain is not None and domain not in domain_names():
            raise ConfigError(
                f"{key} = {domain!r} in {file}: unknown domain",
                f"use one of: {', '.join(domain_names())}; or install the package that has it",
            )
    if spec.files:
        _check_beside_files(spec.model_fields_set, file)
    check_loads_versions(spec.engine, "a curriculum", str(file))
    _check_keep(spec, file)
    return spec


def _check_beside_files(given: set[str], file: Path) -> None:
    """Raise ConfigError for keys that files make meaningless, or necessary."""
    if "domain" in given:
        raise ConfigError(
            f"domain and [files] in {file}: problems come from only one of them",
            "leave one of them out",
        )
    if "cold_start" in given:
        raise ConfigError(
            f"[cold_start] in {file}: there are no demonstrations for [files]",
            "leave [cold_start] out, and set start to a model that follows instructions",
        )
    if "start" not in given:
        raise ConfigError(
            f"start is missing in {file}: a curriculum with [files] has no default model",
            "set start to a model that follows instructions, by the name that the engine uses",
        )


def _check_keep(spec: CurriculumSpec, file: Path) -> None:
    """Raise ConfigError where a consolidation could keep no proof: it would unlearn the generator
    in silence.
    """
    keep, most = spec.consolidate.keep, spec.generator.alpha + spec.generator.beta
    if keep > most:
        raise ConfigError(
            f"[consolidate] keep = {keep:g} in {file} is above a proof's largest reward,"
            " [generator] alpha + beta ="
            f" {most:g}",
            f"lower keep to less than {most:g}, or let alpha and beta add up to 1",
        )
