"""The training of a run: [reward], [training] and [fine_tuning] of a run file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from proofloop.config.section import Section
from proofloop.method.rewards import PAPER_ALPHA, PAPER_BETA, RewardPreset
from proofloop.schema.records import MODEL_ROLES, ModelRole
from proofloop.schema.validation import HINT


class RewardSection(Section):
    """The rewards of a run that trains."""

    preset: RewardPreset = Field(
        "paper",
        description="`paper`: eq. (5); `weighted`: 0.6 proof score + 0.3 accuracy of the"
        " self-score + 0.1 format",
    )
    alpha: float = Field(
        PAPER_ALPHA, ge=0, le=1, description="`paper`: weight of R_Y, the proof's score"
    )
    beta: float = Field(
        PAPER_BETA,
        ge=0,
        le=1,
        description="`paper`: weight of R_Z, the reward of the self-evaluation",
    )
    meta: bool = Field(True, description="multiply the verifier's reward by R_meta, eq. (3)")
    proof_score: Literal["label", "mean"] = Field(
        "label",
        description="R_Y: the proof's `label`, or the `mean` of its readable critiques' scores;"
        " undecided proofs then train too",
    )


class RoleTraining(Section):
    """The training of one role."""

    steps: int = Field(0, ge=0, description="GRPO steps; 0: the role does not learn")
    begin: int = Field(
        0, ge=0, description="steps of the other roles before the first step of this one"
    )
    groups: int = Field(
        64,
        ge=1,
        description="the most groups with a signal in a step; half of them are about flawed"
        " proofs if there are enough",
    )
    train_on: Literal["signal", "all"] = Field(
        "signal",
        description="`signal`: the groups whose rewards differ, at most `groups`; `all`: every"
        " group of the step",
    )
    reference: str | None = Field(
        None, description="the model of the KL term; default: the role's start model"
    )
    settings: dict[str, Any] = Field(
        default_factory=dict, description="GRPO's settings, checked by the trainer"
    )


class Training(Section):
    """Training on the run's labels. By default a run does not train.

    The meta-verifier learns from given analyses. A verifier that trains without it learns from
    given analyses too: one model then has both roles.
    """

    problems: int = Field(16, ge=1, description="completely labeled problems in a step")
    ahead: float = Field(
        2.0,
        ge=1.0,
        description="problems of this many steps may wait for the trainer; this limits their"
        " number, not their age",
    )
    generator: RoleTraining = RoleTraining()
    verifier: RoleTraining = RoleTraining()
    meta_verifier: RoleTraining = RoleTraining()

    def of(self, role: ModelRole) -> RoleTraining:
        own: RoleTraining = getattr(self, role)
        return own

    @property
    def roles(self) -> tuple[ModelRole, ...]:
        """The roles that are trained."""
        return tuple(role for role in MODEL_ROLES if self.of(role).steps > 0)

    @property
    def learner_of_analyses(self) -> ModelRole | None:
        """The role that learns from given analyses, if any: a verifier that trains without the
        meta-verifier learns both roles.
        """
        if "meta_verifier" in self.roles:
            return "meta_verifier"
        return "verifier" if "verifier" in self.roles else None

    def problems_allowed(self, steps: Mapping[str, int]) -> int | None:
        """The number of problems that may be posed after these training steps of each role. None:
        no limit.
        """
        learning = [role for role in self.roles if steps.get(role, 0) < self.of(role).steps]
        rounds = [self.of(role).begin + steps.get(role, 0) for role in learning]
        return round((min(rounds) + self.ahead) * self.problems) if rounds else None


class Lora(Section):
    """Train an adapter (LoRA, arXiv 2106.09685) instead of all weights: to each chosen matrix W,
    the low-rank product (alpha / rank) B A is added. Versions are adapters in PEFT's format.
    """

    rank: int = Field(16, ge=1, le=1024, description="the rank of B A")
    alpha: int = Field(32, ge=1, le=65536, description="B A is scaled by alpha / rank")
    targets: tuple[str, ...] = Field(
        (),
        strict=False,
        description='the names of the matrices, such as `["q_proj", "v_proj"]`; by default all'
        " linear layers except the output layer",
    )


BATCH = "answers in an optimizer step"
LEARNING_RATE = "AdamW's largest learning rate"
ROWS = (
    "a file of chat rows (`messages`), or of rows of a role (`role`, `question`, `solution`,"
    " `analysis`, `answer`), relative to the "
)
KEEP = "the lowest reward of an answer of `runs` to train on"


class Supervised(Section):
    """The size of supervised steps."""

    batch: int = Field(64, ge=1, description=BATCH)
    learning_rate: float = Field(2e-4, gt=0, description=LEARNING_RATE)
    tokens_per_pass: int = Field(
        16384,
        ge=1,
        description="padded tokens in a forward pass: sets memory and speed, not the loss; a"
        " domain's demonstrations ignore it",
    )

    @property
    def schedule(self) -> dict[str, Any]:
        """These settings by name."""
        return self.model_dump(include=set(Supervised.model_fields))


class FineTuning(Supervised):
    """Supervised training of one model of all roles. Such a run has no problems. Give exactly one
    of `demonstrations`, `domain` and `runs`.
    """

    start: str = Field("nano-base", description="the model that training starts from")
    demonstrations: Path | None = Field(None, strict=False, description=f"{ROWS}run file")
    domain: str | None = Field(None, description="the domain that brings demonstrations")
    runs: tuple[str, ...] = Field(
        (),
        strict=False,
        description="runs whose best answers are the demonstrations; `NAME:ROLE` takes those of one"
        " role",
    )
    keep: float = Field(0.99, ge=0, le=1, description=KEEP)
    most: int = Field(
        600, ge=1, description="the most prompts of each role whose answers are trained on"
    )
    steps: int | None = Field(None, ge=1, description="optimizer steps; default: by `epochs`")
    epochs: int = Field(1, ge=1, description="passes over the answers, without `steps`")

    @model_validator(mode="after")
    def _one_source(self) -> FineTuning:
        given = [name for name in ("demonstrations", "domain", "runs") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(
                f"has {len(given)} sources of answers"
                f"{HINT}give exactly one of demonstrations, domain and runs"
            )
        if self.domain and not self.steps:
            raise ValueError(
                f"domain = {self.domain!r} has demonstrations without end"
                f"{HINT}set steps; 600 train the nano model"
            )
        return self

    @model_validator(mode="after")
    def _roles_exist(self) -> FineTuning:
        for source in self.runs:
            role = source.partition(":")[2]
            if ":" in source and role not in MODEL_ROLES:
                raise ValueError(
                    f"runs has {source!r}, and {role!r} is not a role"
                    f"{HINT}write NAME, or NAME:ROLE with one of {', '.join(MODEL_ROLES)}"
                )
        return self

    @property
    def sources(self) -> tuple[tuple[str, tuple[ModelRole, ...]], ...]:
        """The names of `runs`, each once, with the roles whose answers are taken."""
        wanted: dict[str, set[str]] = {}
        for source in self.runs:
            name, _, role = source.partition(":")
            wanted.setdefault(name, set()).add(role)
        return tuple(
            (name, tuple(role for role in MODEL_ROLES if roles & {"", role}))
            for name, roles in wanted.items()
        )
