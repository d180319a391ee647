"""Exports training batches in slime's sample format, to train the 671B mixture of experts, which
needs expert parallelism.

slime (https://github.com/THUDM/slime) reads one dictionary for each sample, as its `Sample.to_dict`
writes it. The fields are those of slime/utils/types.py at commit 0d234f3e. The export was not run
with slime.

slime counts optimizer updates; proofloop counts steps, one for each batch. proofloop's groups
differ in size, since undecided proofs are left out, and slime would then treat the whole batch as
one group. The exported reward is therefore the advantage (the reward minus its group's mean), and
the arguments turn off slime's own normalisation.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from proofloop.schema import keys
from proofloop.schema.records import TrainingBatch, TrainingSample
from proofloop.store import Store, get_record
from proofloop_trainer.grpo.batch import advantages
from proofloop_trainer.grpo.settings import GrpoSettings


def slime_samples(batch: TrainingBatch, settings: GrpoSettings) -> Iterator[dict[str, Any]]:
    """The batch's samples in order as slime's dictionaries; `settings.truncated` decides on
    truncated ones.
    """
    groups = list(dict.fromkeys(sample.group for sample in batch.samples))
    pairs = zip(batch.samples, advantages(batch.samples), strict=True)
    for index, (sample, advantage) in enumerate(pairs):
        yield _sample(sample, advantage, groups.index(sample.group), index, settings)


def slime_lines(batch: TrainingBatch, settings: GrpoSettings) -> str:
    """The samples as JSON lines, for a function that is given to slime as
    --rollout-function-path.
    """
    return "".join(json.dumps(sample) + "\n" for sample in slime_samples(batch, settings))


def export(store: Store, run: str, stage: str, settings: Mapping[str, object], out: Path) -> int:
    """Write all batches of a stage to the new folder `out` as slime's samples; returns the number
    of batches.

    notes.txt lists the settings that slime's arguments cannot express; arguments.txt is written
    last.
    """
    checked = GrpoSettings.model_validate(settings)
    out.mkdir(parents=True)
    found = list(store.list(keys.batches(run, stage)))
    samples = 1
    for key in found:
        batch = get_record(store, key, TrainingBatch)
        (out / f"{batch.step:06d}.jsonl").write_text(slime_lines(batch, checked), "utf-8")
        samples = max(samples, len(batch.samples))
    (out / "notes.txt").write_text(notes(checked), "utf-8")
    (out / "arguments.txt").write_text(
        shlex.join(launch_arguments(checked, samples)) + "\n", "utf-8"
    )
    return len(found)


def notes(settings: GrpoSettings) -> str:
    """The settings that have no counterpart among slime's arguments, or a different meaning."""
    lines = [
        f"epochs = {settings.epochs}: slime passes over a batch once; its --num-epoch counts"
        " passes over the prompts",
        f"minibatch_sequences = {settings.minibatch_sequences}: set as --num-steps-per-rollout, by"
        " the largest batch; set --rollout-batch-size and --n-samples-per-prompt so that their"
        " product is the samples of a batch: batches differ in size, and slime drops the samples"
        " beyond a multiple",
        f"decay_steps = {settings.decay_steps}: --lr-decay-iters counts updates; the learning rate"
        " falls at each",
        f"tokens_per_pass = {settings.tokens_per_pass}: affects only memory; see"
        " --max-tokens-per-gpu",
        f"max_staleness = {settings.max_staleness}: was applied when the batches were written",
        f"seed = {settings.seed}: slime shuffles the samples differently",
    ]
    return "\n".join(lines) + "\n"


def launch_arguments(settings: GrpoSettings, samples: int = 1) -> list[str]:
    """slime's arguments for the objective of these settings, with the stabilisers of the
    DeepSeek-V3 models.

    `samples`: the number of samples in the largest batch.
    """
    updates = math.ceil(samples / settings.minibatch_sequences)
    flags = [
        "--disable-grpo-std-normalization",
        "--disable-rewards-normalization",
        "--use-rollout-logprobs",
    ]
    options: dict[str, object] = {
        "--advantage-estimator": "grpo",
        "--eps-clip": settings.clip_low,
        "--eps-clip-high": settings.clip_high,
        "--lr": settings.learning_rate,
        "--lr-decay-style": "linear" if settings.decay_steps else "constant",
        "--weight-decay": settings.weight_decay,
        "--rollout-temperature": settings.temperature,
        "--clip-grad": settings.max_grad_norm,
        "--num-steps-per-rollout": updates,
    }
    if settings.decay_steps:
        options["--min-lr"] = f"{settings.step_size(settings.decay_steps):g}"
        options["--lr-decay-iters"] = settings.decay_steps * updates
    if settings.replay_routing:
        flags.append("--use-rollout-routing-replay")
    if settings.kl_coefficient:
        flags += ["--use-kl-loss", *(["--use-unbiased-kl"] if settings.unbiased_kl else [])]
        options |= {"--kl-loss-coef": settings.kl_coefficient, "--kl-loss-type": "k3"}
    if settings.off_policy_mask_threshold is not None:
        flags.append("--use-opsm")
        options["--opsm-delta"] = settings.off_policy_mask_threshold
    return [*flags, *(word for name, value in options.items() for word in (name, f"{value}"))]


def _sample(
    sample: TrainingSample, advantage: float, group: int, index: int, settings: GrpoSettings
) -> dict[str, Any]:
    tokens = sample.tokens
    is_masked = sample.truncated and settings.truncated == "mask"
    experts = tokens.routed_experts
    return {
        "group_index": group,
        "index": index,
        "tokens": [*tokens.prompt_ids, *tokens.completion_ids],
        "response_length": len(tokens.completion_ids),
        "reward": advantage,
        "loss_mask": [0 if is_masked else 1] * len(tokens.completion_ids),
        "weight_versions": [sample.model_version],
        "rollout_log_probs": list(tokens.logprobs),
        "rollout_routed_experts": [list(row) for row in experts] if experts is not None else None,
        "status": "truncated" if sample.truncated else "completed",
        "metadata": {
            "key": sample.key,
            "raw_reward": sample.reward,
            "reward_parts": sample.reward_parts,
        },
    }
