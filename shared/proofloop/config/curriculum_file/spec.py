"""The whole curriculum file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from proofloop.config.curriculum_file.sections import Data, Files, Gate, Labels, Watch
from proofloop.config.curriculum_file.stages import (
    ABLATED,
    ITERATION,
    LATER_ITERATION,
    SAMPLED,
    Ablation,
    Stage,
    StageKind,
)
from proofloop.config.curriculum_file.training_sections import (
    ColdStart,
    Consolidate,
    EnhancedStage,
    GeneratorStage,
    GrpoStage,
    MetaVerifierStage,
    VerifierStage,
)
from proofloop.config.run_file import EnginePrices, EngineSection, RoleSampling, SamplingSection
from proofloop.config.run_file.training import Lora, Supervised
from proofloop.config.section import LARGEST_SEED, Section
from proofloop.engine import find_engine
from proofloop.method.domains import prompts_of
from proofloop.schema.validation import HINT


def _prompts(checked: dict[str, Any]) -> str:
    """The default prompt pack of the problems. An invalid domain is reported elsewhere."""
    return prompts_of(None if checked.get("files") else checked.get("domain"))


class CurriculumSpec(Section):
    """The whole curriculum."""

    name: str = Field(description="the curriculum's name in the store and for `proofloop runs`")
    seed: int = Field(
        0, ge=0, le=LARGEST_SEED, description="the random seed; `--seed` overrides it"
    )
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
    lora: Lora | None = None
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
    def _cold_start_by_lora(self) -> CurriculumSpec:
        begins_cold = any(stage.kind == "cold_start" for stage in self.stages)
        if self.lora and begins_cold and not self.cold_start.has_source:
            raise ValueError(
                "[lora] and the cold start on a domain's demonstrations do not go together: they"
                " train all weights"
                f"{HINT}set [cold_start] steps = 0, or demonstrations or runs"
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


def changeable(spec: CurriculumSpec) -> dict[str, Any]:
    """The settings that may change after a curriculum has started: paths, memory, how the engine is
    reached, prices, the limits of [watch], and the consolidation apart from the answers that it
    samples. All others are frozen.
    """
    info = find_engine(spec.engine.kind)
    return {
        "base": True,
        "engine": {"settings": info.changeable if info else set()},
        "prices": True,
        "cold_start": {"tokens_per_pass"},
        **{kind: {"settings": {"tokens_per_pass"}} for kind in SAMPLED},
        "consolidate": {"keep", "epochs", *Supervised.model_fields},
        "watch": True,
    }


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
