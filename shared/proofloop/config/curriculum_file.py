"""The curriculum file of `proofloop iterate`, and the stages that follow from it.

After a cold start, each iteration (section 3.1 of the paper) trains the verifier, the
meta-verifier, the enhanced verifier, and the generator from the verifier's checkpoint. Then it
labels the generator's new proofs and consolidates all roles into one model, with which the next
iteration starts. Each stage writes its manifest last; a stage with a manifest is not repeated.
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
    RoleSampling,
    SamplingSection,
    check_loads_versions,
    read_fields,
)
from proofloop.config.run_labeling import Labeling
from proofloop.config.section import Section
from proofloop.errors import ConfigError
from proofloop.method.domains import domain_names, prompts_of
from proofloop.method.rewards import PAPER_ALPHA, PAPER_BETA
from proofloop.schema.ids import check_id
from proofloop.schema.records import ModelRole
from proofloop.schema.validation import HINT

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
"""Later iterations start with the enhanced verifier, because the consolidated model already
verifies and meta-verifies.
"""

CURRICULUM_FILE = "a curriculum file"
"""The kind of file, for errors."""

ABLATED: dict[Ablation, StageKind] = {"no-meta": "enhanced", "no-self": "generator"}


class Files(Section):
    """Your own problems, and proofs and analyses graded by people (D_v, D_mv), instead of a domain.

    The files are JSON or JSONL; paths are relative to the curriculum file. Of 10 questions, 8 are
    for training, one for the gate and one for measuring; the digest of a question decides.
    """

    problems: Path = Field(
        strict=False, description="problems, in the rows of a run's problem file"
    )
    proofs: Path = Field(strict=False, description="D_v: rows of question, solution and score")
    analyses: Path | None = Field(
        None,
        strict=False,
        description="D_mv: rows of question, solution, analysis and quality; default: no graded"
        " analyses",
    )


class ColdStart(Section):
    """Supervised steps before the training by rewards: on the domain's demonstrations, or on those
    of `demonstrations` or `runs`.
    """

    demonstrations: Path | None = Field(
        None,
        strict=False,
        description="a file of chat rows (`messages`), or of rows of a role (`role`, `question`,"
        " `solution`, `analysis`, `answer`), relative to the curriculum file",
    )
    runs: tuple[str, ...] = Field(
        (),
        strict=False,
        description="runs in the store, such as a stronger model's; their best answers are the"
        " demonstrations",
    )
    keep: float = Field(
        0.99, ge=0, le=1, description="the lowest reward of an answer of `runs` to train on"
    )
    steps: int = Field(600, ge=0, description="supervised steps; 0 skips the stage")
    batch: int = Field(48, ge=1, description="demonstrations in a step")
    learning_rate: float = Field(
        1.5e-3, gt=0, description="AdamW's largest learning rate; it rises first, then falls"
    )

    @model_validator(mode="after")
    def _one_source(self) -> ColdStart:
        if self.demonstrations and self.runs:
            raise ValueError(
                "demonstrations and runs do not go together: each gives the demonstrations"
                f"{HINT}leave one of them out"
            )
        return self

    @property
    def has_source(self) -> bool:
        """Whether the demonstrations are not the domain's."""
        return bool(self.demonstrations or self.runs)


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


STEPS = "GRPO steps; 0 skips the stage"
GROUPS = "prompts in a step"


class GrpoStage(Section):
    """One GRPO stage. Its learning rate falls to a tenth by the last step, unless `settings` has
    `decay_steps`.
    """

    steps: int = Field(ge=0, description=STEPS)
    groups: int = Field(32, ge=1, description=GROUPS)
    samples: int = Field(8, ge=2, description="answers to each prompt: the group size")
    ahead: float = Field(
        1.0,
        ge=1.0,
        description="prompts of this many steps may wait for the trainer; 1: each step is on-policy"
        " and is resumed bit for bit; more keeps the engines busy",
    )
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
        12, ge=0, description="groups from D_mv, fewer than `groups`; the others are from D_v"
    )
    refresh: int = Field(
        8,
        ge=1,
        description="steps between two refreshes; a refresh adds the newest verifier's analyses to"
        " D_mv",
    )
    refresh_steps: int = Field(8, ge=0, description="the meta-verifier's steps in a refresh")

    @model_validator(mode="after")
    def _both_kinds(self) -> EnhancedStage:
        if self.steps and self.meta_groups >= self.groups:
            raise ValueError(
                f"meta_groups = {self.meta_groups} leaves none of groups = {self.groups} for D_v"
                f"{HINT}set meta_groups below {self.groups}"
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

    problems: int = Field(256, ge=1, description="new problems, and as many from `harder`")
    earlier: bool = Field(True, description="also label as many proofs by the previous generator")
    proofs_per_problem: int = Field(2, ge=1, description="proofs for each problem and generator")
    rule: Labeling = Labeling(n=8, m=3, k=2)


class Consolidate(Section):
    """Rejection fine-tuning on the best answers of all roles."""

    prompts: int = Field(600, ge=1, description="the most prompts for each role")
    samples: int = Field(4, ge=1, description="answers to each prompt")
    keep: float = Field(0.99, ge=0, le=1, description="the lowest reward of an answer to train on")
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
        1.96, ge=0, description="the size of the noise, in standard errors of the paired difference"
    )


class Watch(Section):
    """Limits that stop a stage: exceeding one is a sign of reward hacking, or that there is nothing
    to learn from.
    """

    window: int = Field(5, ge=1, description="the limits hold for means over this many last steps")
    no_signal: float = Field(
        0.98,
        ge=0,
        le=1,
        description="the highest share of groups whose answers all earn the same, in the first"
        " `window` steps; 1: no limit",
    )
    format: float = Field(0.8, ge=0, le=1, description="the lowest share of readable answers")
    shorter: float = Field(
        0.4, gt=0, le=1, description="the shortest mean answer, relative to the first steps"
    )
    longer: float = Field(
        2.5, ge=1, description="the longest mean answer, relative to the first steps"
    )
    same_score: float = Field(
        0.9, gt=0, le=1, description="the highest share of one score among a judge's answers"
    )


SAMPLED: dict[StageKind, ModelRole] = {
    "verifier": "verifier",
    "meta_verifier": "meta_verifier",
    "enhanced": "verifier",
    "generator": "generator",
}
"""The GRPO stages, each with the role that it samples."""

ENGINE_MEMORY = {"max_batch", "models_kept", "prompt_tokens_kept", "threads", "tokens_per_pass"}
CHANGEABLE: dict[str, Any] = {
    "base": True,
    "engine": {"settings": ENGINE_MEMORY},
    **{kind: {"settings": {"tokens_per_pass"}} for kind in SAMPLED},
    "consolidate": True,
    "watch": True,
}
"""The settings that may change after a curriculum has started: paths, memory, the limits of
[watch], and the consolidation. All others are frozen.
"""


class Stage(Section):
    """One stage. The version of an ablation is measured, but never serves."""

    name: str
    kind: StageKind
    iteration: int
    ablation: Ablation | None = None


def _prompts(checked: dict[str, Any]) -> str:
    """The default prompt pack of the problems. An invalid domain is reported elsewhere."""
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
        description="a domain of hard problems, for labels from iteration 1 on and for half of the"
        " generator's problems from iteration 2 on",
    )
    prompts: str = Field(
        default_factory=_prompts,
        description="the prompt pack; default: the domain's own, and `math` for [files]",
    )
    start: str = Field(
        "nano-base", description="the start model of all roles; required with [files]"
    )
    iterations: int = Field(2, ge=1, le=16, description="how often the stages run")
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
        description="test problems for measuring all versions at the end, and as many from"
        " `harder`; 0: none",
    )
    base: Path = Field(Path(), strict=False)

    @model_validator(mode="after")
    def _ablations_are_stages(self) -> CurriculumSpec:
        if len(set(self.ablations)) < len(self.ablations):
            raise ValueError(
                f"ablations = {list(self.ablations)} has a duplicate{HINT}name each ablation once"
            )
        if "no-meta" in self.ablations and not self.enhanced.steps:
            raise ValueError(
                "ablation no-meta is the stage [enhanced] without R_meta, and [enhanced] steps = 0"
                f"{HINT}set [enhanced] steps, or leave no-meta out"
            )
        return self

    @model_validator(mode="after")
    def _one_temperature(self) -> CurriculumSpec:
        judges = self.sampling.verifier.temperature, self.sampling.meta_verifier.temperature
        if self.enhanced.steps and self.enhanced.meta_groups and len(set(judges)) > 1:
            raise ValueError(
                f"[sampling] verifier and meta_verifier have temperatures {judges[0]:g} and"
                f" {judges[1]:g}: [enhanced] trains on answers of both at one temperature"
                f"{HINT}give both the same temperature, or set [enhanced] meta_groups = 0"
            )
        return self

    @model_validator(mode="after")
    def _files_or_domain(self) -> CurriculumSpec:
        if self.files is None:
            return self
        if self.harder:
            raise ValueError(
                f"harder = {self.harder!r} and [files] do not go together: each gives problems"
                f"{HINT}leave one of them out"
            )
        if self.files.analyses is None and (self.meta_verifier.steps or self.enhanced.meta_groups):
            raise ValueError(
                "[files] analyses is missing: the meta-verifier trains on graded analyses"
                f"{HINT}give analyses, or set [meta_verifier] steps = 0 and [enhanced] meta_groups"
                " = 0"
            )
        return self

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All stages in order."""
        return tuple(_stages(self))


def _stages(spec: CurriculumSpec) -> Iterator[Stage]:
    if spec.cold_start.steps and (spec.files is None or spec.cold_start.has_source):
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
    """The GRPO settings of a kind of stage, unchecked: its `settings`, with defaults from the other
    sections.

    `steps`: the number of steps, if it differs from the section's.
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
    """Read and check a curriculum file. Raises ConfigError."""
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
        _check_beside_files(spec, file)
    check_loads_versions(spec.engine, "a curriculum", str(file))
    _check_keep(spec, file)
    return spec


def _check_beside_files(spec: CurriculumSpec, file: Path) -> None:
    """Raise ConfigError for keys that do not go with [files], or that [files] requires."""
    given = spec.model_fields_set
    if "domain" in given:
        raise ConfigError(
            f"domain and [files] in {file} do not go together: each gives the problems",
            "leave one of them out",
        )
    if "cold_start" in given and not spec.cold_start.has_source:
        raise ConfigError(
            f"[cold_start] in {file} has no demonstrations: only a domain brings its own, and"
            " [files] gives none",
            "set [cold_start] demonstrations or runs; or leave [cold_start] out, and set start to a"
            " model that follows instructions",
        )
    if "start" not in given:
        raise ConfigError(
            f"start is missing in {file}: a curriculum with [files] has no default model",
            "set start to a model that follows instructions, by the name that the engine uses",
        )


def _check_keep(spec: CurriculumSpec, file: Path) -> None:
    """Raise ConfigError if the consolidation can keep no proof: the model would silently unlearn to
    prove.
    """
    keep = spec.consolidate.keep
    most = spec.generator.alpha + spec.generator.beta
    if keep > most:
        raise ConfigError(
            f"[consolidate] keep = {keep:g} in {file} is above the highest reward of a proof:"
            f" [generator] alpha + beta = {most:g}",
            f"set keep below {most:g}, or choose alpha and beta with sum 1",
        )
