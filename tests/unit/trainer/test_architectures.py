"""Training on models that differ from a plain transformer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, Gemma3Config, PretrainedConfig

from proofloop.config.demonstration_file import Demonstration, Turn
from proofloop.errors import ProofloopError
from proofloop.schema.records import Sampling, Tokens
from proofloop_serving.decoding.batch import decode
from proofloop_serving.decoding.row import Row
from proofloop_trainer.export import dtype_of
from proofloop_trainer.fine_tuning.encoding import Encoder, RowTooLong
from proofloop_trainer.grpo.batch import answer_of, collate
from proofloop_trainer.grpo.learner import GrpoLearner
from proofloop_trainer.grpo.policy import score
from proofloop_trainer.nano import BASE_FOLDER
from tests.tiny_models import SIZES, random_model, tiny_model
from tests.unit.trainer.grpo_examples import ONE_UPDATE, batch, sample, save_tiny_model

RANDOM_IN_TRAINING = {
    "llama": {"attention_dropout": 0.5},
    "seed_oss": {"head_dim": 8, "attention_dropout": 0.5, "residual_dropout": 0.5},
    "falcon": {"ffn_hidden_size": 48, "attention_dropout": 0.5, "hidden_dropout": 0.5},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32, "dropout": 0.5, "layerdrop": 0.5},
    "mixtral": {"num_local_experts": 4, "router_jitter_noise": 0.5},
    "phimoe": {"num_local_experts": 4, "input_jitter_noise": 0.5},
}
"""Models with dropout, skipped layers or noise in their training mode."""


def composite(folder: Path, **text: object) -> PretrainedConfig:
    """Gemma 3's configuration, whose text model has a configuration of its own."""
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    fields = {**SIZES, "head_dim": 8, "sliding_window": 8, **text}
    config = Gemma3Config(text_config=fields, vision_config=vision, mm_tokens_per_image=4)
    config.save_pretrained(folder)
    return config


@pytest.mark.parametrize("kind", RANDOM_IN_TRAINING)
def test_a_model_in_training_scores_as_it_sampled(kind: str, tmp_path: Path):
    save_tiny_model(tmp_path)  # for its tokenizer
    sampler = tiny_model(kind, **RANDOM_IN_TRAINING[kind])
    sampler.save_pretrained(tmp_path)
    rows = [Row(tuple(range(3, 3 + n)), Sampling(), seed=n, max_tokens=12) for n in (4, 9)]
    decode(sampler, rows, frozenset())
    answers = [
        answer_of(
            Tokens(
                prompt_ids=each.prompt_ids,
                completion_ids=tuple(each.completion_ids),
                logprobs=tuple(each.logprobs),
            )
        )
        for each in rows
    ]
    inputs = collate(answers)
    with GrpoLearner(tmp_path, ONE_UPDATE) as learner:
        first, again = (score(learner.model, inputs).logprobs_BT for _ in range(2))
    assert torch.equal(first, again)
    torch.testing.assert_close(first, inputs.sampler_logprobs_BT, rtol=0, atol=1e-4)


def test_a_model_with_a_configuration_for_its_text_takes_a_step(tmp_path: Path):
    save_tiny_model(tmp_path)  # for its tokenizer
    random_model(composite(tmp_path)).save_pretrained(tmp_path)
    with GrpoLearner(tmp_path, ONE_UPDATE) as learner:
        with pytest.raises(ProofloopError, match="the model has 48 tokens"):
            learner.step(batch(sample(1.0, completion=(SIZES["vocab_size"],)), sample(0.0)))
        assert learner.step(batch(sample(1.0), sample(0.0))).updates == 1


@pytest.mark.parametrize("text", [{"dtype": "bfloat16"}, {}])
def test_the_type_of_the_weights_may_be_named_in_the_configuration_of_the_text(
    text: dict[str, str], tmp_path: Path
):
    composite(tmp_path, **text)
    assert dtype_of(tmp_path) == (torch.bfloat16 if text else torch.float32)


def test_a_demonstration_has_at_most_the_context_of_the_text_model(tmp_path: Path):
    composite(tmp_path, max_position_embeddings=4)
    AutoTokenizer.from_pretrained(BASE_FOLDER).save_pretrained(tmp_path)
    prompt = (Turn(role="user", content="1 + 1"),)
    shown = Demonstration(prompt=prompt, answer="2" * 9, origin="row 1")
    with pytest.raises(RowTooLong, match="at most 4 positions"):
        Encoder(tmp_path).encode(shown)
