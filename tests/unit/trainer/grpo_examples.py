"""Tiny models and batches for the tests of the GRPO step."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from proofloop.schema.records import Tokens, TrainingBatch, TrainingSample
from proofloop_trainer.grpo.settings import GrpoSettings

VOCABULARY = 48
PAD, END = 0, 1
ONE_UPDATE = GrpoSettings(epochs=1, kl_coefficient=0, minibatch_sequences=1000)


def save_tiny_model(folder: Path, seed: int = 0, dtype: torch.dtype = torch.float32) -> Path:
    """A Llama of 2 layers, width 32 and random weights, with its tokenizer, in Hugging Face
    format.
    """
    disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LlamaForCausalLM(_config()).to(dtype).save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return folder


def _config() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.2,
        pad_token_id=PAD,
        eos_token_id=END,
        bos_token_id=None,
    )


def _tokenizer() -> PreTrainedTokenizerFast:
    words = {"<pad>": PAD, "<end>": END} | {f"w{i}": i for i in range(2, VOCABULARY)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="w2")),
        pad_token="<pad>",
        eos_token="<end>",
    )


def sample(
    reward: float,
    *,
    group: str = "g",
    prompt: tuple[int, ...] = (5, 6, 7),
    completion: tuple[int, ...] = (8, 9),
    logprobs: tuple[float, ...] | None = None,
    truncated: bool = False,
) -> TrainingSample:
    """One answer; its log-probabilities are those of a uniform sampler unless given."""
    return TrainingSample(
        key=f"{group}/{reward}",
        role="verifier",
        group=group,
        tokens=Tokens(
            prompt_ids=prompt,
            completion_ids=completion,
            logprobs=logprobs or (-3.9,) * len(completion),
        ),
        reward=reward,
        reward_parts={"score": reward},
        model_version="v0",
        truncated=truncated,
    )


def overflowing(group: str) -> TrainingSample:
    """An answer with a loss that is not finite: e^(3.9 + 1000) is too large."""
    return sample(-1.0, group=group, logprobs=(-1000.0, -1000.0))


def batch(*samples: TrainingSample) -> TrainingBatch:
    return TrainingBatch(run_id="run", role="verifier", step=1, samples=samples)


def ragged_samples(count: int, seed: int = 0) -> tuple[TrainingSample, ...]:
    """Groups of four with prompts and answers of many lengths, sampled by some other model."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(_ragged(index, generator) for index in range(count))


def _ragged(index: int, generator: torch.Generator) -> TrainingSample:
    prompt, completion = (torch.randint(1, 9, (2,), generator=generator)).tolist()
    return sample(
        torch.rand((), generator=generator).item(),
        group=str(index // 4),
        prompt=tuple(torch.randint(2, VOCABULARY, (prompt,), generator=generator).tolist()),
        completion=tuple(torch.randint(2, VOCABULARY, (completion,), generator=generator).tolist()),
        logprobs=tuple((-4 + torch.randn(completion, generator=generator) / 2).tolist()),
    )


def changed(settings: GrpoSettings, **changes: object) -> GrpoSettings:
    """The settings with some of them changed, checked again."""
    return GrpoSettings.model_validate(settings.model_dump() | changes)
