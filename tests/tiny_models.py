"""Tiny models with random weights, of any architecture of transformers."""

from __future__ import annotations

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from proofloop_serving.decoding.row import Row

SIZES = {
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}


def tiny_model(kind: str, **fields: object) -> PreTrainedModel:
    """A model of this `model_type` for evaluation; `fields` change or extend SIZES."""
    return random_model(AutoConfig.for_model(kind, **{**SIZES, **fields}))


def random_model(config: PretrainedConfig) -> PreTrainedModel:
    """A model of this configuration, in 32 bits and for evaluation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def logprobs_of(model: PreTrainedModel, row: Row) -> torch.Tensor:
    """The log-probabilities [T] of a row's T sampled tokens, by one pass over prompt and answer."""
    ids = torch.tensor([(*row.prompt_ids, *row.completion_ids)])
    with torch.inference_mode():
        logits = model(ids, use_cache=False).logits[0, len(row.prompt_ids) - 1 : -1]
    answered = torch.tensor(row.completion_ids)[:, None]
    return logits.log_softmax(-1).gather(1, answered)[:, 0]
