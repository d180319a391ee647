"""Our GRPO step against TRL's own `GRPOTrainer.train`, in one run, with the same model, prompts and length of answers.

Both get the same answers: TRL's trainer by a `rollout_func` that hands out recorded tokens instead of sampling, ours as
training batches. So neither time holds any sampling. Prints one JSON object as the last line of stdout:
`ratio_tokens_per_second` (ours to TRL's), seconds a step and tokens a second of each, and the peak memory of each, in a
process of its own. `--small` takes fewer steps.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from proofloop.records import Tokens, TrainingBatch, TrainingSample
from proofloop_trainer.grpo import GrpoLearner, GrpoSettings
from proofloop_trainer.nano import BASE_FOLDER

GROUPS, SAMPLES = 8, 8
PROMPT_TOKENS, ANSWER_TOKENS = 48, 48
SEQUENCES = GROUPS * SAMPLES
KL, RATE = 0.02, 1e-5
WARM_UP = 2


def answers(step: int) -> list[tuple[list[int], list[int], list[float], float]]:
    """Prompt, answer, log-probabilities and reward of each sequence of a step; random, and the same for both."""
    rng = random.Random(step)
    rows = []
    for _ in range(GROUPS):
        prompt = [rng.randrange(5, 50) for _ in range(PROMPT_TOKENS)]
        rows += [
            (prompt, [rng.randrange(5, 50) for _ in range(ANSWER_TOKENS)], [-4.0] * ANSWER_TOKENS, rng.random())
            for _ in range(SAMPLES)
        ]
    return rows


def ours(steps: int) -> list[float]:
    """Seconds of each step of our learner."""
    settings = GrpoSettings(
        learning_rate=RATE,
        kl_coefficient=KL,
        epochs=1,
        minibatch_sequences=SEQUENCES,
        tokens_per_pass=SEQUENCES * (PROMPT_TOKENS + ANSWER_TOKENS),
    )
    learner, seconds = GrpoLearner(BASE_FOLDER, settings), []
    for step in range(steps):
        samples = tuple(
            TrainingSample(
                key=str(number),
                group=str(number // SAMPLES),
                tokens=Tokens(prompt_ids=tuple(prompt), completion_ids=tuple(answer), logprobs=tuple(logprobs)),
                reward=reward,
                reward_parts={},
                model_version="v",
            )
            for number, (prompt, answer, logprobs, reward) in enumerate(answers(step))
        )
        began = time.perf_counter()
        learner.step(TrainingBatch(run_id="r", role="verifier", step=step, samples=samples))
        seconds.append(time.perf_counter() - began)
    return seconds


class Clock(TrainerCallback):  # type: ignore[misc]
    """When each of TRL's steps began and ended."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._began = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(time.perf_counter() - self._began)


class QuietTrainer(GRPOTrainer):  # type: ignore[misc]
    """TRL's trainer without its report to its makers."""

    def _send_telemetry(self) -> None:
        """A benchmark reports nothing."""


def theirs(steps: int) -> list[float]:
    """Seconds of each step of TRL's trainer; what it does with the handed-out answers is part of its step."""
    done = iter(range(steps + 1))
    current: list[tuple[list[int], list[int], list[float], float]] = []

    def rollout(prompts: list[Any], trainer: GRPOTrainer) -> dict[str, Any]:
        current[:] = answers(next(done))[: len(prompts)]
        return {
            "prompt_ids": [row[0] for row in current],
            "completion_ids": [row[1] for row in current],
            "logprobs": [row[2] for row in current],
        }

    def reward(prompts: list[Any], **_: Any) -> list[float]:
        return [row[3] for row in current]

    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = GRPOConfig(
            output_dir=folder,
            loss_type="grpo",
            scale_rewards="none",
            beta=KL,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            per_device_train_batch_size=SEQUENCES,
            gradient_accumulation_steps=1,
            num_generations=SAMPLES,
            max_completion_length=ANSWER_TOKENS,
            max_steps=steps,
            use_cpu=not torch.cuda.is_available(),
            bf16=False,
            activation_checkpointing=False,
            disable_dropout=True,
            report_to="none",
            logging_strategy="no",
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = QuietTrainer(
            model=str(BASE_FOLDER),
            reward_funcs=reward,
            args=arguments,
            train_dataset=Dataset.from_dict({"prompt": ["Modulo 10, start at 7."] * SEQUENCES * (steps + 1)}),
            processing_class=AutoTokenizer.from_pretrained(BASE_FOLDER),
            rollout_func=rollout,
            callbacks=[clock],
        )
        trainer.train()
    return clock.seconds


def measured(side: str, steps: int) -> dict[str, float]:
    """The median step of one side, in a process of its own."""
    command = [sys.executable, __file__, "--side", side, "--steps", str(steps)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--side", choices=("ours", "trl"))
    parser.add_argument("--steps", type=int)
    options = parser.parse_args()
    steps = options.steps or (6 if options.small else 20)
    if options.side:
        torch.set_num_threads(1)
        seconds = (ours if options.side == "ours" else theirs)(steps)[WARM_UP:]
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds_per_step": statistics.median(seconds), "memory_mb": memory}))
        return
    sides = {side: measured(side, steps) for side in ("ours", "trl")}
    tokens = {side: SEQUENCES * ANSWER_TOKENS / found["seconds_per_step"] for side, found in sides.items()}
    figures = {"ratio_tokens_per_second": tokens["ours"] / tokens["trl"]}
    for side, found in sides.items():
        figures |= {f"{side}_{name}": value for name, value in found.items()}
        figures[f"{side}_tokens_per_second"] = tokens[side]
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
