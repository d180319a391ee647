"""The settings of GRPO steps. Imports no torch, so that any service can check a run file."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from proofloop.config.explain import explain
from proofloop.errors import ConfigError
from proofloop.schema.records import Sampling


class GrpoSettings(BaseModel):
    """The settings of a GRPO step. An unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(3e-4, gt=0, le=1, description="AdamW's step size, without warm-up")
    decay_steps: int | None = Field(
        None,
        ge=1,
        description="the learning rate falls linearly to a tenth at this step; unset: it is"
        " constant in a run",
    )
    weight_decay: float = Field(0.0, ge=0, lt=1, description="AdamW's decoupled weight decay")
    epochs: int = Field(2, ge=1, le=16, description="passes of a step over its batch")
    minibatch_sequences: int = Field(
        128, ge=1, description="the most sequences in one optimizer update"
    )
    tokens_per_pass: int = Field(
        1024,
        ge=1,
        description="padded tokens in a forward pass: sets memory and speed, not the loss; raise it"
        " on a GPU",
    )
    clip_low: float = Field(0.2, ge=0, lt=1, description="the ratio is clipped below 1 - clip_low")
    clip_high: float = Field(
        0.2, ge=0, le=10, description="the ratio is clipped above 1 + clip_high"
    )
    kl_coefficient: float = Field(
        0.02, ge=0, le=10, description="beta: weight of the KL to the reference model"
    )
    unbiased_kl: bool = Field(
        True, description="multiply the KL term by the ratio, as DeepSeek-V3.2 does"
    )
    off_policy_mask_threshold: float | None = Field(
        None,
        gt=0,
        description="delta: drop an answer with a negative advantage if mean log(old/new)"
        " is above it",
    )
    replay_routing: bool = Field(
        True,
        description="a mixture of experts trains with the experts used in sampling, if the engine"
        " reports them",
    )
    truncated: Literal["train", "mask"] = Field(
        "train", description="mask: a truncated answer counts in its group's mean but has no loss"
    )
    max_staleness: int | None = Field(
        None,
        ge=0,
        description="drop groups with an answer of a model older than this many steps;"
        " unset: drop none",
    )
    temperature: float = Field(
        1.0, gt=0, le=10, description="the answers' sampling temperature; divides the logits"
    )
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are scaled down to this norm")
    seed: int = Field(
        0, ge=0, lt=2**32, description="shuffles the minibatches; nothing else in a step is random"
    )

    def step_size(self, step: int) -> float:
        """The learning rate at a step, counted from 1."""
        done = min(step / self.decay_steps, 1.0) if self.decay_steps else 0.0
        return self.learning_rate * (1 - 0.9 * done)


def grpo_settings(
    fields: dict[str, object], section: str, origin: str, sampled: Sampling
) -> GrpoSettings:
    """Read the GRPO settings of a section (`training.verifier`, `enhanced`) whose answers have this
    sampling.

    `origin` names the section's owner, for example `run 'mine'`. Raises ConfigError for a bad
    field, and for a sampling that does not draw from all tokens: the ratio needs the probabilities
    of the distribution that was sampled.
    """
    if sampled.top_p < 1 or sampled.temperature == 0:
        raise ConfigError(
            f"[{section}] cannot train on answers sampled at top_p {sampled.top_p:g}, temperature"
            f" {sampled.temperature:g}",
            "set top_p = 1 and a temperature above 0 in [sampling]",
        )
    try:
        settings = GrpoSettings.model_validate({"temperature": sampled.temperature, **fields})
    except ValidationError as error:
        raise explain(error, f"[{section}.settings] of {origin}", GrpoSettings) from error
    if settings.temperature != sampled.temperature:
        raise ConfigError(
            f"[{section}.settings] temperature = {settings.temperature:g}: its answers are sampled"
            f" at {sampled.temperature:g}",
            "leave it out: the temperature of [sampling] is used",
        )
    return settings
