"""A tiny model of DeepSeek-V3's architecture (latent attention, routed and shared experts) through the whole trainer.

Its weights are random: what is tested is that the step, the checkpoint and the engine take the architecture.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("proofloop_trainer.grpo", reason="proofloop-trainer is not installed")

import torch
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM
from transformers.utils.logging import disable_progress_bar

from proofloop.engine.base import ChatMessage, GenerationRequest
from proofloop.records import Sampling, TrainingBatch, TrainingSample
from proofloop_serving.engine import LocalEngine
from proofloop_trainer.checkpoint import save_checkpoint, verify_checkpoint
from proofloop_trainer.export import export_model
from proofloop_trainer.grpo import GrpoLearner
from proofloop_trainer.grpo_settings import GrpoSettings
from proofloop_trainer.nano.tokenizer import build_tokenizer

QUESTION = "Modulo 10, start at 7. a + 3. b * 4. Show that the result is 0."


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, tokenizer = tmp_path_factory.mktemp("moe"), build_tokenizer()
    config = DeepseekV3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        moe_intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        n_shared_experts=1,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=2,
        topk_group=1,
        first_k_dense_replace=1,
        kv_lora_rank=16,
        q_lora_rank=16,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=16,
        max_position_embeddings=256,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    disable_progress_bar()
    torch.manual_seed(0)
    DeepseekV3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def answers(folder: Path, count: int) -> list[TrainingSample]:
    """What the in-process engine samples from the model, rewarded at random."""
    engine = LocalEngine(lambda version: folder)
    try:
        calls = [
            engine.submit(
                GenerationRequest(str(seed), "moe", (ChatMessage("user", QUESTION),), Sampling(max_tokens=12), seed)
            )
            for seed in range(count)
        ]
        generations = [call.result(60) for call in calls]
    finally:
        engine.close()
    assert all(generation.tokens for generation in generations)
    return [
        TrainingSample(
            key=str(number),
            group="g",
            tokens=generation.tokens,
            reward=float(number % 2),
            reward_parts={},
            model_version="moe",
        )
        for number, generation in enumerate(generations)
    ]


def test_sample_train_checkpoint_restore_and_sample_again(model_folder: Path, tmp_path: Path):
    samples = tuple(answers(model_folder, 6))
    batch = TrainingBatch(run_id="r", role="verifier", step=0, samples=samples)
    learner = GrpoLearner(model_folder, GrpoSettings(learning_rate=1e-2, kl_coefficient=0.02))
    report = learner.step(batch)
    # The engine's log-probabilities are the trainer's own: on the first pass the ratio would be exactly 1.
    assert report.updates == 2 and abs(report.mean_ratio - 1) < 0.2
    save_checkpoint(learner, tmp_path / "checkpoint")
    verify_checkpoint(tmp_path / "checkpoint")
    restored = GrpoLearner.restore(tmp_path / "checkpoint", model_folder)
    again, expected = restored.step(batch), learner.step(batch)
    assert again.loss == expected.loss
    export_model(tmp_path / "checkpoint", tmp_path / "model")
    assert answers(tmp_path / "model", 2)[0].tokens.completion_ids


def test_every_routed_expert_and_the_router_learn(model_folder: Path):
    learner = GrpoLearner(model_folder, GrpoSettings(learning_rate=1e-2, epochs=1, kl_coefficient=0.0))
    before = {name: weight.detach().clone() for name, weight in learner.model.named_parameters()}
    learner.step(TrainingBatch(run_id="r", role="verifier", step=0, samples=tuple(answers(model_folder, 8))))
    moved = {name for name, weight in learner.model.named_parameters() if not torch.equal(weight, before[name])}
    assert any("experts" in name and "shared" not in name for name in moved)
    assert any(name.endswith("mlp.gate.weight") for name in moved)
