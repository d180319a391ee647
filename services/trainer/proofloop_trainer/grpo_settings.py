"""What a person may choose about a GRPO step. Without torch, so that a run file can be checked anywhere."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from proofloop.errors import ConfigError
from proofloop.records import Sampling
from proofloop.runspec import explain


class GrpoSettings(BaseModel):
    """How one batch changes the model. An unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(3e-4, gt=0, le=1, description="AdamW's step size, without warm-up")
    decay_steps: int | None = Field(
        None,
        ge=1,
        description="the step size falls in a straight line to a tenth at this step; a run's is constant unless said",
    )
    weight_decay: float = Field(0.0, ge=0, lt=1, description="AdamW's decoupled weight decay")
    epochs: int = Field(2, ge=1, le=16, description="how often a step goes through its batch")
    minibatch_sequences: int = Field(128, ge=1, description="the most sequences that share one optimizer update")
    tokens_per_pass: int = Field(
        4096, ge=1, description="padded tokens in one forward pass: memory and speed, not the loss; more on a GPU"
    )
    clip_low: float = Field(0.2, ge=0, lt=1, description="the ratio is cut off below 1 - clip_low")
    clip_high: float = Field(0.2, ge=0, le=10, description="the ratio is cut off above 1 + clip_high")
    kl_coefficient: float = Field(0.02, ge=0, le=10, description="beta: weight of the KL to the reference model")
    unbiased_kl: bool = Field(True, description="multiply the KL term by the ratio, as DeepSeek-V3.2 does")
    off_policy_mask_threshold: float | None = Field(
        None, gt=0, description="delta: drop a bad answer when mean log(old/new) exceeds it; unset: none"
    )
    replay_routing: bool = Field(
        True, description="a mixture of experts trains with the experts that were sampled, where the engine names them"
    )
    truncated: Literal["train", "mask"] = Field(
        "train", description="mask: a truncated answer counts in its group's mean and gives no loss"
    )
    max_staleness: int | None = Field(
        None, ge=0, description="drop groups with an answer of a model more than so many steps old; unset: none"
    )
    temperature: float = Field(1.0, gt=0, le=10, description="the one the answers were sampled at: scales the logits")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are scaled down to this norm")
    seed: int = Field(0, ge=0, lt=2**32, description="orders the minibatches; nothing else in a step is random")

    def step_size(self, step: int) -> float:
        """AdamW's step size at a step, counted from 1."""
        done = min(step / self.decay_steps, 1.0) if self.decay_steps else 0.0
        return self.learning_rate * (1 - 0.9 * done)


def grpo_settings(fields: dict[str, object], section: str, origin: str, sampled: Sampling) -> GrpoSettings:
    """The settings of a section (training.verifier, enhanced) whose answers are sampled so. Raises ConfigError.

    `origin`: whose section it is, `run 'mine'`.
    The ratio compares with what the sampler drew from: all tokens, at its temperature.
    """
    if sampled.top_p < 1 or sampled.temperature == 0:
        where = f"answers to train on [{section}] are sampled at top_p {sampled.top_p:g}, temperature"
        raise ConfigError(f"{where} {sampled.temperature:g}", "top_p = 1 and a temperature above 0 in [sampling]")
    try:
        settings = GrpoSettings.model_validate({"temperature": sampled.temperature, **fields})
    except ValidationError as error:
        raise explain(error, f"[{section}.settings] of {origin}", GrpoSettings) from error
    if settings.temperature != sampled.temperature:
        where = f"[{section}.settings] temperature = {settings.temperature:g}: its answers are sampled at"
        raise ConfigError(f"{where} {sampled.temperature:g}", "leave it out: it is the one of [sampling]")
    return settings
