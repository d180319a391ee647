"""A tiny model of DeepSeek-V3's architecture (latent attention, routed and shared experts) through
the whole loop.

Its weights are random: what is tested is that step, checkpoint, engine and a real Triton take the
architecture, and that training takes the experts that were sampled.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("proofloop_trainer", reason="proofloop-trainer is not installed")

import torch
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM
from transformers.utils.logging import disable_progress_bar

from proofloop.config.run_file.training import Lora
from proofloop.engine import open_engine
from proofloop.engine.base import ChatMessage, Engine, GenerationRequest, prepare
from proofloop.errors import ProofloopError
from proofloop.schema.records import Sampling, TrainingBatch, TrainingSample
from proofloop.store import LocalStore
from proofloop.store.model_folders import publish_folder
from proofloop_serving.engine import LocalEngine
from proofloop_trainer.checkpoint import verify_checkpoint
from proofloop_trainer.export import export_model
from proofloop_trainer.grpo.batch import answers_to_train, collate
from proofloop_trainer.grpo.learner import GrpoLearner
from proofloop_trainer.grpo.policy import score
from proofloop_trainer.grpo.settings import GrpoSettings
from proofloop_trainer.nano.tokenizer import build_tokenizer
from tests.integration.triton_server import own_triton

MODEL = "runs/moe/models/verifier/000001"
SAMPLING = Sampling(max_tokens=12)
QUESTION = "Modulo 10, start at 7. a + 3. b * 4. Show that the result is 0."


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_mixture(tmp_path_factory.mktemp("moe"))


def save_tiny_mixture(folder: Path) -> Path:
    """The model with the nano tokenizer, in Hugging Face format."""
    tokenizer = build_tokenizer()
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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        DeepseekV3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def sampled(engine: Engine, count: int) -> tuple[TrainingSample, ...]:
    """What an engine samples from the model it calls MODEL, rewarded at random."""
    asked = [
        engine.submit(
            GenerationRequest(str(seed), MODEL, (ChatMessage("user", QUESTION),), SAMPLING, seed)
        )
        for seed in range(count)
    ]
    generations = [call.result(60) for call in asked]
    assert all(generation.tokens for generation in generations)
    return tuple(
        TrainingSample(
            key=str(number),
            role="generator",
            group="g",
            tokens=generation.tokens,
            reward=float(number % 2),
            reward_parts={},
            model_version=MODEL,
        )
        for number, generation in enumerate(generations)
    )


def answers(folder: Path, count: int) -> tuple[TrainingSample, ...]:
    """What the in-process engine samples."""
    engine = LocalEngine(lambda version: folder)
    try:
        return sampled(engine, count)
    finally:
        engine.close()


def batch(samples: tuple[TrainingSample, ...]) -> TrainingBatch:
    return TrainingBatch(run_id="r", role="verifier", step=0, samples=samples)


def test_sample_train_checkpoint_restore_and_sample_again(model_folder: Path, tmp_path: Path):
    first = batch(answers(model_folder, 6))
    learner = GrpoLearner(model_folder, GrpoSettings(learning_rate=1e-2, kl_coefficient=0.02))
    report = learner.step(first)
    # The engine's log-probabilities are the trainer's own: on the first pass the ratio would be
    # exactly 1.
    assert report.updates == 2 and abs(report.mean_ratio - 1) < 0.2
    learner.save(tmp_path / "checkpoint")
    verify_checkpoint(tmp_path / "checkpoint")
    restored = GrpoLearner.restore(tmp_path / "checkpoint", model_folder)
    again, expected = restored.step(first), learner.step(first)
    assert again.loss == expected.loss
    export_model(tmp_path / "checkpoint", tmp_path / "model", torch.float32)
    assert answers(tmp_path / "model", 2)[0].tokens.completion_ids


def test_every_routed_expert_and_the_router_learn(model_folder: Path):
    learner = GrpoLearner(
        model_folder, GrpoSettings(learning_rate=1e-2, epochs=1, kl_coefficient=0.0)
    )
    before = {name: weight.detach().clone() for name, weight in learner.model.named_parameters()}
    learner.step(batch(answers(model_folder, 8)))
    moved = {
        name
        for name, weight in learner.model.named_parameters()
        if not torch.equal(weight, before[name])
    }
    assert any("experts" in name and "shared" not in name for name in moved)
    assert any(name.endswith("mlp.gate.weight") for name in moved)


def test_an_adapter_beside_the_experts_samples_and_trains(sharp_folder: Path, tmp_path: Path):
    """On answers of its own version, the ratio of a single pass is 1."""
    first, adapter = batch(answers(sharp_folder, 8)), tmp_path / "adapter"
    with GrpoLearner(sharp_folder, ONE_PASS, lora=Lora(rank=4)) as learner:
        assert learner.step(first).grad_norm > 0
        learner.save(adapter)
    second = answers(adapter, 8)
    assert second != first.samples
    assert all(sample.tokens.routed_experts for sample in second)
    with GrpoLearner.restore(adapter) as restored:
        report = restored.step(batch(second))
        assert report.mean_ratio == pytest.approx(1, abs=1e-3) and report.grad_norm > 0


# Routing replay


ONE_PASS = GrpoSettings(learning_rate=1e-2, epochs=1, kl_coefficient=0.0)


@pytest.fixture(scope="module")
def sharp_folder(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model with experts that matter: large enough for another choice to be seen in the
    log-probabilities.
    """
    folder = tmp_path_factory.mktemp("sharp")
    shutil.copytree(model_folder, folder, dirs_exist_ok=True)
    model = DeepseekV3ForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".experts." in name or "lm_head" in name:
                weight.mul_(20)
    model.save_pretrained(folder)
    return folder


def other_choices(folder: Path, into: Path) -> Path:
    """The model with a router that prefers other experts: the same weights, so the same answer by
    the same experts.
    """
    shutil.copytree(folder, into)
    model = DeepseekV3ForCausalLM.from_pretrained(into)
    for name, bias in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            bias.copy_(torch.tensor([3.0, 3.0, -3.0, -3.0]))  # the first of its two groups, always
    model.save_pretrained(into)
    return into


def test_an_answer_keeps_the_experts_of_every_token_that_was_read(sharp_folder: Path):
    for sample in answers(sharp_folder, 3):
        tokens = sample.tokens
        assert tokens.routed_experts is not None
        assert len(tokens.routed_experts) == len(tokens.prompt_ids) + len(tokens.completion_ids) - 1
        assert all(
            len(set(experts)) == 2 and set(experts) <= {0, 1, 2, 3}
            for experts in tokens.routed_experts
        )


def test_replayed_routing_gives_the_samplers_logprobs_where_free_routing_does_not(
    sharp_folder: Path, tmp_path: Path
):
    first = batch(answers(sharp_folder, 8))
    drifted = other_choices(sharp_folder, tmp_path / "drifted")
    ratios = {}
    for replays in (True, False):
        learner = GrpoLearner(drifted, ONE_PASS.model_copy(update={"replay_routing": replays}))
        pass_of_all = collate(answers_to_train(first.samples, "train"))
        learner.replay.use(pass_of_all.experts_BTE if replays else None)
        with torch.no_grad():
            logprobs_BT = score(learner.model, pass_of_all).logprobs_BT
        ratio_BT = (logprobs_BT - pass_of_all.sampler_logprobs_BT).exp()
        ratios[replays] = (ratio_BT - 1).abs()[pass_of_all.completion_mask_BT.bool()].max().item()
    assert ratios[True] < 1e-4
    assert ratios[False] > 1e-2


def test_a_sample_whose_experts_are_not_of_all_tokens_is_refused(sharp_folder: Path):
    one, *others = answers(sharp_folder, 2)
    cut = one.tokens.model_copy(update={"routed_experts": one.tokens.routed_experts[1:]})
    with pytest.raises(ProofloopError, match="routed experts of"):
        GrpoLearner(sharp_folder, ONE_PASS).step(
            batch((one.model_copy(update={"tokens": cut}), *others))
        )


# Serving


@pytest.mark.timeout(600)
def test_a_real_triton_serves_what_was_trained_and_gives_what_training_needs(
    sharp_folder: Path, tmp_path: Path
):
    learner = GrpoLearner(sharp_folder, ONE_PASS)
    learner.step(batch(answers(sharp_folder, 4)))
    learner.save(tmp_path / "checkpoint")
    export_model(tmp_path / "checkpoint", tmp_path / "model", torch.float32)
    store = LocalStore(tmp_path / "store")
    publish_folder(store, tmp_path / "model", MODEL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROOFLOOP_STORE", str(tmp_path / "store"))
        with own_triton() as triton:
            settings = {"endpoints": [triton.endpoint], "server_settings": "nano-cpu.yaml"}
            engine = open_engine("triton", settings, lambda version: Path())
            try:
                prepare(engine, MODEL)
                served = sampled(engine, 4)
            finally:
                engine.close()
    for ours, theirs in zip(answers(tmp_path / "model", 4), served, strict=True):
        assert theirs.tokens.completion_ids == ours.tokens.completion_ids
        assert theirs.tokens.routed_experts == ours.tokens.routed_experts
        assert theirs.tokens.logprobs == pytest.approx(ours.tokens.logprobs, abs=1e-4)
    assert learner.step(batch(served)).mean_ratio == pytest.approx(1.0, abs=1e-3)
