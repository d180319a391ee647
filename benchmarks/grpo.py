"""Compares our GRPO step with TRL's `GRPOTrainer.train` for the same model, prompts and answer
lengths.

Both get the same answers: TRL's trainer by a `rollout_func` that returns recorded tokens, ours as
training batches. So neither time includes sampling. Each side runs in a separate process, and they
take their steps in turn, so that other load on the machine affects both. The last line of stdout is
JSON: `ratio_tokens_per_second` (ours to TRL's, by the medians of the wall time),
`ratio_tokens_per_cpu_second` (by CPU time; use it on a busy machine), and for each side seconds per
step, tokens per second and peak memory.

Then it measures the shares of sampling and of the update in a step of the whole loop: on a GPU, for
a dense model and a mixture of experts with about 300 M weights; without a GPU, for tiny models, and
"gpu" is "not run". `--small`: fewer steps.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    AutoTokenizer,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    TrainerCallback,
)
from trl import GRPOConfig, GRPOTrainer

from proofloop.engine.base import ChatMessage, GenerationRequest
from proofloop.schema.records import Sampling, Tokens, TrainingBatch, TrainingSample
from proofloop_serving.engine import LocalEngine
from proofloop_trainer.grpo.learner import GrpoLearner
from proofloop_trainer.grpo.settings import GrpoSettings
from proofloop_trainer.nano import BASE_FOLDER

GROUPS, SAMPLES = 8, 8
PROMPT_TOKENS, ANSWER_TOKENS = 48, 48
SEQUENCES = GROUPS * SAMPLES
KL, RATE = 0.02, 1e-5
WARM_UP = 2
NO_GPU = "not run: there is no CUDA device here"

Answer = tuple[list[int], list[int], list[float], float]
Turn = Callable[[], None]


def answers(step: int) -> list[Answer]:
    """Random prompts, answers, log-probabilities and rewards of a step's sequences, the same for
    both sides.
    """
    rng = random.Random(step)
    rows = []
    for _ in range(GROUPS):
        prompt = [rng.randrange(5, 50) for _ in range(PROMPT_TOKENS)]
        rows += [
            (
                prompt,
                [rng.randrange(5, 50) for _ in range(ANSWER_TOKENS)],
                [-4.0] * ANSWER_TOKENS,
                rng.random(),
            )
            for _ in range(SAMPLES)
        ]
    return rows


class Clock:
    """Starts a step when the other side has ended its own, and prints the step's time and
    memory.
    """

    def begin(self) -> None:
        sys.stdin.readline()
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def end(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # the optimizer's update may still run on the GPU
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        print(json.dumps({"wall": wall, "cpu": cpu, "memory_mb": peak_memory_mb()}), flush=True)


def peak_memory_mb() -> float:
    """The peak memory of the GPU if there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def batch_of(rows: list[Answer], step: int) -> TrainingBatch:
    return TrainingBatch(
        run_id="r",
        role="verifier",
        step=step,
        samples=tuple(
            TrainingSample(
                role="generator",
                key=str(number),
                group=str(number // SAMPLES),
                tokens=Tokens(
                    prompt_ids=tuple(prompt), completion_ids=tuple(answer), logprobs=tuple(logprobs)
                ),
                reward=reward,
                reward_parts={},
                model_version="v",
            )
            for number, (prompt, answer, logprobs, reward) in enumerate(rows)
        ),
    )


def ours(steps: int) -> None:
    """Take the steps of our learner."""
    settings = GrpoSettings(
        learning_rate=RATE,
        kl_coefficient=KL,
        epochs=1,
        minibatch_sequences=SEQUENCES,
        tokens_per_pass=SEQUENCES * (PROMPT_TOKENS + ANSWER_TOKENS),
    )
    learner, clock = GrpoLearner(BASE_FOLDER, settings), Clock()
    for step in range(steps):
        batch = batch_of(answers(step), step)
        clock.begin()
        learner.step(batch)
        clock.end()


class TrlClock(TrainerCallback):  # type: ignore[misc]
    """Times each of TRL's steps."""

    def __init__(self) -> None:
        self._clock = Clock()

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._clock.begin()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._clock.end()


def theirs(steps: int) -> None:
    """Take the steps of TRL's trainer, including its processing of the given answers."""
    done = iter(range(steps + 1))
    current: list[Answer] = []

    def rollout(prompts: list[Any], trainer: GRPOTrainer) -> dict[str, Any]:
        current[:] = answers(next(done))[: len(prompts)]
        return {
            "prompt_ids": [row[0] for row in current],
            "completion_ids": [row[1] for row in current],
            "logprobs": [row[2] for row in current],
        }

    def reward(prompts: list[Any], **_: Any) -> list[float]:
        return [row[3] for row in current]

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
        trainer = GRPOTrainer(
            model=str(BASE_FOLDER),
            reward_funcs=reward,
            args=arguments,
            train_dataset=Dataset.from_dict(
                {"prompt": ["Modulo 10, start at 7."] * SEQUENCES * (steps + 1)}
            ),
            processing_class=AutoTokenizer.from_pretrained(BASE_FOLDER),
            rollout_func=rollout,
            callbacks=[TrlClock()],
        )
        trainer.train()


@contextmanager
def side(name: str, steps: int) -> Iterator[subprocess.Popen[str]]:
    """Start one side in a separate process that takes a step for each line that it receives."""
    command = [sys.executable, __file__, "--side", name, "--steps", str(steps)]
    environment = os.environ | {"HF_HUB_DISABLE_TELEMETRY": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def step_of(process: subprocess.Popen[str]) -> dict[str, float]:
    """Let a side take its next step."""
    assert process.stdin and process.stdout
    process.stdin.write("go\n")
    process.stdin.flush()
    while not (line := process.stdout.readline()).startswith('{"wall"'):
        if not line:
            raise RuntimeError(f"a side ended too early: {process.args}")
    found: dict[str, float] = json.loads(line)
    return found


def compared(steps: int) -> dict[str, float]:
    """Run both sides, step by step in turn."""
    taken: dict[str, list[dict[str, float]]] = {"ours": [], "trl": []}
    with side("ours", steps) as our, side("trl", steps) as their:
        for _ in range(steps):
            taken["ours"].append(step_of(our))
            taken["trl"].append(step_of(their))
    figures: dict[str, float] = {}
    for name, found in taken.items():
        wall, cpu = (
            statistics.median(step[kind] for step in found[WARM_UP:]) for kind in ("wall", "cpu")
        )
        figures |= {f"{name}_seconds_per_step": wall, f"{name}_cpu_seconds_per_step": cpu}
        figures[f"{name}_tokens_per_second"] = SEQUENCES * ANSWER_TOKENS / wall
        figures[f"{name}_memory_mb"] = found[-1]["memory_mb"]
    ratios = {
        "ratio_tokens_per_second": figures["trl_seconds_per_step"]
        / figures["ours_seconds_per_step"],
        "ratio_tokens_per_cpu_second": figures["trl_cpu_seconds_per_step"]
        / figures["ours_cpu_seconds_per_step"],
    }
    return ratios | figures


def models(vocabulary: int, is_large: bool) -> dict[str, PreTrainedModel]:
    """A dense model and a mixture of experts with random weights: about 300 M weights each, or tiny
    ones.
    """
    width, layers, experts = (1024, 16, 16) if is_large else (64, 2, 4)
    same = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "bos_token_id": None,
    }
    dense = LlamaConfig(
        **same, intermediate_size=4 * width, num_attention_heads=8, max_position_embeddings=4096
    )
    moe = DeepseekV3Config(
        **same,
        intermediate_size=2 * width,
        moe_intermediate_size=width // 4,
        num_attention_heads=8,
        num_key_value_heads=8,
        n_shared_experts=1,
        n_routed_experts=experts,
        num_experts_per_tok=2,
        n_group=2,
        topk_group=1,
        first_k_dense_replace=1,
        kv_lora_rank=width // 4,
        q_lora_rank=width // 2,
        qk_rope_head_dim=width // 16,
        qk_nope_head_dim=width // 16,
        v_head_dim=width // 8,
        max_position_embeddings=4096,
    )
    return {"dense": LlamaForCausalLM(dense), "moe": DeepseekV3ForCausalLM(moe)}


def shares(answer_tokens: int, is_large: bool) -> dict[str, float]:
    """Measure sampling and update in one step of the loop, for both kinds of model."""
    figures: dict[str, float] = {}
    tokenizer = AutoTokenizer.from_pretrained(BASE_FOLDER)
    for name, model in models(32_000 if is_large else len(tokenizer), is_large).items():
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            found = loop(Path(folder), answer_tokens)
        label = name if is_large else f"tiny_{name}"
        figures[f"{label}_weights_m"] = model.num_parameters() / 1e6
        figures |= {f"{label}_{figure}": value for figure, value in found.items()}
    return figures


def loop(folder: Path, answer_tokens: int) -> dict[str, float]:
    """Sample a batch and take a step on it; measures the second of two rounds."""
    engine = LocalEngine(lambda _: folder)
    learner = GrpoLearner(folder, GrpoSettings(kl_coefficient=KL, epochs=1, tokens_per_pass=32_768))
    try:
        for turn in range(2):
            began = time.perf_counter()
            batch = sampled(engine, answer_tokens, turn)
            between = time.perf_counter()
            learner.step(batch)
            ended = time.perf_counter()
    finally:
        engine.close()
    tokens = sum(len(sample.tokens.completion_ids) for sample in batch.samples)
    return {
        "generation_share": (between - began) / (ended - began),
        "update_share": (ended - between) / (ended - began),
        "generated_tokens_per_second": tokens / (between - began),
        "trained_tokens_per_second": tokens / (ended - between),
    }


def sampled(engine: LocalEngine, answer_tokens: int, turn: int) -> TrainingBatch:
    asked = [
        engine.submit(
            GenerationRequest(
                f"{turn}-{number}",
                "m",
                (ChatMessage("user", f"Modulo 10, start at {number // SAMPLES}. a + 3."),),
                Sampling(max_tokens=answer_tokens),
                seed=turn * SEQUENCES + number,
            )
        )
        for number in range(SEQUENCES)
    ]
    found = [call.result(600).tokens for call in asked]
    rows = [
        (
            list(tokens.prompt_ids),
            list(tokens.completion_ids),
            list(tokens.logprobs),
            float(number % 2),
        )
        for number, tokens in enumerate(found)
        if tokens is not None
    ]
    return batch_of(rows, turn)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--side", choices=("ours", "trl"))
    parser.add_argument("--steps", type=int)
    options = parser.parse_args()
    steps = options.steps or (6 if options.small else 30)
    torch.set_num_threads(1)
    if options.side:
        (ours if options.side == "ours" else theirs)(steps)
        return
    figures: dict[str, Any] = {name: round(value, 3) for name, value in compared(steps).items()}
    has_gpu = torch.cuda.is_available()
    figures["gpu"] = torch.cuda.get_device_name() if has_gpu else NO_GPU
    found = shares(256 if has_gpu else 16, has_gpu)
    print(json.dumps(figures | {name: round(value, 3) for name, value in found.items()}))


if __name__ == "__main__":
    main()
