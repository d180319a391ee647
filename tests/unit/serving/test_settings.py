"""The settings files: read as they stand, with keys that TensorRT-LLM knows."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("proofloop_serving", reason="proofloop-serving is not installed")

from proofloop.errors import ConfigError
from proofloop_serving.settings import (
    CHECKOUT_FOLDER,
    FOLDER_VARIABLE,
    TensorRTSettings,
    load_settings,
)

LLM_KEYS = {
    *(
        "tensor_parallel_size",
        "moe_expert_parallel_size",
        "enable_attention_dp",
        "max_batch_size",
        "max_num_tokens",
    ),
    *(
        "max_seq_len",
        "enable_chunked_prefill",
        "kv_cache_config",
        "sparse_attention_config",
        "speculative_config",
    ),
    *("cuda_graph_config", "moe_config", "custom_tokenizer", "stream_interval", "sampler_type"),
}
"""Arguments of LLM that we use or may: NVIDIA/TensorRT-LLM, tensorrt_llm/llmapi/llm_args.py
(TorchLlmArgs, the source with `sparse_attention_config`, early 2026) and
tests/unittest/api_stability/references*/llm.yaml.
"""

NESTED_KEYS = {
    "kv_cache_config": {
        "enable_block_reuse",
        "free_gpu_memory_fraction",
        "dtype",
        "max_tokens",
        "tokens_per_block",
    },
    "sparse_attention_config": {
        "algorithm",
        "index_n_heads",
        "index_head_dim",
        "index_topk",
        "indexer_max_chunk_size",
    },
    "speculative_config": {
        "decoding_type",
        "num_nextn_predict_layers",
        "use_relaxed_acceptance_for_thinking",
    },
    "cuda_graph_config": {"batch_sizes", "max_batch_size", "enable_padding"},
}


@pytest.mark.parametrize("path", sorted(CHECKOUT_FOLDER.glob("*.yaml")), ids=lambda path: path.name)
def test_a_shipped_file_is_read_and_every_key_is_known_and_says_why(path: Path) -> None:
    settings = load_settings(path.name)
    if isinstance(settings, TensorRTSettings):
        assert settings.llm.keys() <= LLM_KEYS
        for name, value in settings.llm.items():
            assert not isinstance(value, dict) or value.keys() <= NESTED_KEYS[name]
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    unsaid = [
        line
        for line in lines
        if "#" not in line and not line.endswith(":") and "engine:" not in line
    ]
    assert unsaid == []


def test_the_large_models_settings_keep_seeds_and_log_probabilities() -> None:
    settings = load_settings("deepseek-v3.2-8xh200.yaml")
    assert isinstance(settings, TensorRTSettings)
    # 1.2 samples greedily with it, and dies of log-probabilities.
    assert "speculative_config" not in settings.llm
    assert settings.llm["sampler_type"] == "TRTLLMSampler"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("engine: vllm", "vllm"),
        (
            "engine: transformers\nmax_batch: 0",
            "max_batch = 0: Input should be greater than or equal to 1",
        ),
        ("engine: transformers\nbatch: 3", "batch = 3: Extra inputs are not permitted"),
        ("engine: [", "is not valid YAML"),
        (None, "no settings file 'mine.yaml' in .*: it has no settings files"),
    ],
)
def test_unreadable_settings_are_refused_in_one_line(
    text: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    if text is not None:
        (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        load_settings("mine.yaml")
    assert "\n" not in str(caught.value)
