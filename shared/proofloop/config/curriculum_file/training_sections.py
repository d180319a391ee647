"""The sections of the stages that train: one for each kind of stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from proofloop.config.run_file.training import BATCH, KEEP, LEARNING_RATE, ROWS, Supervised
from proofloop.config.section import Section
from proofloop.method.rewards import PAPER_ALPHA, PAPER_BETA
from proofloop.schema.validation import HINT


class ColdStart(Supervised):
    """Supervised steps before the training by rewards: on the domain's demonstrations, or on those
    of `demonstrations` or `runs`.
    """

    demonstrations: Path | None = Field(None, strict=False, description=f"{ROWS}curriculum file")
    runs: tuple[str, ...] = Field(
        (),
        strict=False,
        description="runs in the store, such as a stronger model's; their best answers are the"
        " demonstrations",
    )
    keep: float = Field(0.99, ge=0, le=1, description=KEEP)
    steps: int = Field(600, ge=0, description="supervised steps; 0 skips the stage")
    batch: int = Field(48, ge=1, description=BATCH)
    learning_rate: float = Field(1.5e-3, gt=0, description=LEARNING_RATE)

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


class Consolidate(Supervised):
    """Rejection fine-tuning on the best answers of all roles."""

    prompts: int = Field(600, ge=1, description="the most prompts for each role")
    samples: int = Field(4, ge=1, description="answers to each prompt")
    keep: float = Field(0.99, ge=0, le=1, description="the lowest reward of an answer to train on")
    epochs: int = Field(1, ge=1, description="passes over the answers")
