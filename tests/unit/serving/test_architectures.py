"""The decoder and the loader on models that differ from a plain transformer."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog
import torch
from transformers import AutoTokenizer, Gemma3TextConfig, PreTrainedModel

from proofloop.errors import EngineError
from proofloop.schema.records import Sampling
from proofloop_serving.decoding.batch import decode
from proofloop_serving.decoding.prompts import forward, read_prompts
from proofloop_serving.decoding.routing import Recorder
from proofloop_serving.decoding.row import Row
from proofloop_serving.loading import context_length, load_model
from proofloop_trainer.nano import BASE_FOLDER
from tests.tiny_models import logprobs_of, tiny_model

torch.set_num_threads(1)

WITH_STATES = {
    "qwen3_5_text": {
        "layer_types": ["linear_attention", "full_attention"],
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
    },
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "falcon_h1": {
        "mamba_d_ssm": 32,
        "mamba_n_heads": 4,
        "mamba_d_head": 8,
        "mamba_d_state": 8,
        "mamba_chunk_size": 8,
    },
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
    "original_max_position_embeddings": 24,
    "factor": 64 / 24,
}


def row(prompt: int, max_tokens: int, seed: int) -> Row:
    return Row(tuple(range(3, 3 + prompt)), Sampling(), seed, max_tokens)


def assert_logprobs_are_those_of_one_pass(model: PreTrainedModel, rows: list[Row]) -> None:
    for each in rows:
        assert len(each.completion_ids) == each.max_tokens
        torch.testing.assert_close(
            torch.tensor(each.logprobs), logprobs_of(model, each), rtol=0, atol=1e-3
        )


@pytest.mark.parametrize("kind", WITH_STATES)
def test_states_follow_their_rows_when_prompts_are_shared_and_rows_end(kind: str):
    model = tiny_model(kind, **WITH_STATES[kind])
    rows = [row(9, 4, 0), row(5, 12, 1), row(9, 12, 2), row(17, 4, 3), row(9, 4, 4)]
    decode(model, rows, frozenset())
    assert_logprobs_are_those_of_one_pass(model, rows)


@pytest.mark.parametrize("kind", WITH_STATES)
def test_a_read_prompt_is_not_changed_by_the_answers_to_it(kind: str):
    model = tiny_model(kind, **WITH_STATES[kind])
    with torch.inference_mode():
        read = read_prompts(model, [(5, 6, 7), (8, 9, 10)], Recorder(model))
        first, again = (
            forward(
                model,
                torch.tensor([[11]]),
                torch.ones(1, 4, dtype=torch.int64),
                read.cache_of(torch.tensor([1])),
            )
            for _ in range(2)
        )
    assert torch.equal(first, again)


def test_routers_that_do_not_return_their_choice_leave_no_record():
    sizes = {"num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size_mlp": 48}
    model = tiny_model("llama4_text", head_dim=8, **sizes)
    rows = [row(5, 4, 0), row(9, 8, 1)]
    decode(model, rows, frozenset())
    assert [each.experts for each in rows] == [[], []]
    assert_logprobs_are_those_of_one_pass(model, rows)


def save(folder: Path, kind: str, **fields: object) -> Path:
    tiny_model(kind, **fields).save_pretrained(folder)
    AutoTokenizer.from_pretrained(BASE_FOLDER).save_pretrained(folder)
    return folder


def test_a_longrope_model_stays_in_its_original_context_and_says_so(tmp_path: Path):
    """Beside a row that is longer, the shorter one would get other tokens."""
    fields = {"rope_parameters": LONGROPE, "original_max_position_embeddings": 24}
    folder = save(tmp_path, "phi3", **fields)
    with structlog.testing.capture_logs() as logs:
        loaded = load_model(folder)
    assert loaded.max_length == 24
    assert [(each["event"], each["tokens"], each["of"]) for each in logs] == [
        ("context_limited", 24, 64)
    ]
    alone, beside = row(5, 12, 0), row(5, 12, 0)
    decode(loaded.model, [alone], frozenset())
    decode(loaded.model, [beside, row(12, loaded.max_length - 12, 1)], frozenset())
    assert beside.completion_ids == alone.completion_ids


def test_other_models_have_the_context_of_their_configuration(tmp_path: Path):
    with structlog.testing.capture_logs() as logs:
        assert load_model(save(tmp_path, "phi3")).max_length == 64
    assert logs == []


def test_longrope_in_one_kind_of_layers_limits_the_context():
    plain = {"rope_type": "default", "rope_theta": 10_000.0}
    layers = {"sliding_attention": plain, "full_attention": LONGROPE}
    assert context_length(Gemma3TextConfig(rope_parameters=layers)) == 24


def test_a_model_that_would_ignore_the_cache_is_refused(tmp_path: Path):
    folder = save(tmp_path, "mamba", state_size=8)
    with pytest.raises(EngineError, match=r"MambaForCausalLM in .* past_key_values") as caught:
        load_model(folder)
    assert not caught.value.retryable
