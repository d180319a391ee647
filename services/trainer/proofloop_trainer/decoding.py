"""Sample many answers at once from a Hugging Face causal language model, with a cache of keys and values.

Each row has its own uniforms, so that its answer does not depend on what else is in the batch. Prompts that occur
several times are read once. Shapes: B rows, P prompt tokens, T tokens so far, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel

from proofloop.engine.base import FinishReason
from proofloop.records import Sampling
from proofloop_trainer.growing_cache import growing_cache

GREEDY_TEMPERATURE = 1e-5  # what temperature 0 means: all mass on the best token


@dataclass
class Row:
    """One answer in the making. `seconds` is its share of the wall time of its batches."""

    prompt_ids: tuple[int, ...]
    sampling: Sampling
    seed: int
    max_tokens: int
    is_cancelled: Callable[[], bool] = lambda: False
    completion_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    seconds: float = 0.0

    def take(self, token: int, logprob: float, eos_ids: frozenset[int], seconds: float) -> None:
        """Add a token, and end where there is reason to; an ended row takes no more."""
        if self.finish_reason:
            return
        self.completion_ids.append(token)
        self.logprobs.append(logprob)
        self.seconds = seconds
        if token in eos_ids:
            self.finish_reason = "stop"
        elif len(self.completion_ids) >= self.max_tokens:
            self.finish_reason = "length"
        elif self.is_cancelled():
            self.finish_reason = "cancelled"


@dataclass
class _State:
    """The rows still decoded, with their cache; ended rows stay until it pays to drop them."""

    rows: list[Row]
    cache: DynamicCache
    mask_BT: torch.Tensor
    logits_BV: torch.Tensor
    temperature_B: torch.Tensor
    top_p_B: torch.Tensor
    uniforms_BS: torch.Tensor

    def keep(self, places: Sequence[int]) -> None:
        index = torch.tensor(places, device=self.mask_BT.device)
        self.rows = [self.rows[place] for place in places]
        self.cache.batch_select_indices(index)
        for name in ("mask_BT", "logits_BV", "temperature_B", "top_p_B", "uniforms_BS"):
            setattr(self, name, getattr(self, name)[index])


@torch.inference_mode()
def decode(model: PreTrainedModel, rows: Sequence[Row], eos_ids: frozenset[int]) -> None:
    """Complete every row in place."""
    if not rows:
        return
    began, shared_seconds, step = time.perf_counter(), 0.0, 0
    state = _read_prompts(model, rows)
    while True:
        uniforms_B = state.uniforms_BS[:, step]
        tokens_B, logprobs_B = sample(state.logits_BV, state.temperature_B, state.top_p_B, uniforms_B)
        began, elapsed = time.perf_counter(), time.perf_counter() - began
        shared_seconds += elapsed / sum(row.finish_reason is None for row in state.rows)
        for row, token, logprob in zip(state.rows, tokens_B.tolist(), logprobs_B.tolist(), strict=True):
            row.take(token, logprob, eos_ids, shared_seconds)
        running = [place for place, row in enumerate(state.rows) if row.finish_reason is None]
        if not running:
            return
        if 2 * len(running) <= len(state.rows):
            state.keep(running)
            tokens_B = tokens_B[torch.tensor(running, device=tokens_B.device)]
        _advance(model, state, tokens_B)
        step += 1


def sample(
    logits_BV: torch.Tensor, temperature_B: torch.Tensor, top_p_B: torch.Tensor, uniforms_B: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [B] by inverting the distribution function, and their log-probabilities [B] as sampled."""
    probabilities_BV = torch.softmax(logits_BV.double() / temperature_B[:, None], dim=-1)
    if bool((top_p_B < 1).any()):
        probabilities_BV = _nucleus(probabilities_BV, top_p_B)
    cumulative_BV = probabilities_BV.cumsum(-1)
    reached_B1 = uniforms_B[:, None] * cumulative_BV[:, -1:]
    tokens_B1 = torch.searchsorted(cumulative_BV, reached_B1, right=True).clamp(max=logits_BV.shape[1] - 1)
    return tokens_B1[:, 0], probabilities_BV.gather(1, tokens_B1)[:, 0].log()


def _nucleus(probabilities_BV: torch.Tensor, top_p_B: torch.Tensor) -> torch.Tensor:
    """Keep the fewest likeliest tokens that together have top_p, and renormalise."""
    ordered_BV, order_BV = probabilities_BV.sort(dim=-1, descending=True, stable=True)
    before_BV = ordered_BV.cumsum(-1) - ordered_BV
    ordered_BV = ordered_BV.masked_fill(before_BV >= top_p_B[:, None], 0.0)
    kept_BV = torch.zeros_like(probabilities_BV).scatter_(1, order_BV, ordered_BV)
    return kept_BV / kept_BV.sum(-1, keepdim=True)


def _read_prompts(model: PreTrainedModel, rows: Sequence[Row]) -> _State:
    """Read each distinct prompt once, padded on the left, then give every row its copy."""
    device = model.device
    prompts = list(dict.fromkeys(row.prompt_ids for row in rows))
    width = max(map(len, prompts))
    tokens = torch.tensor([(0,) * (width - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor([(0,) * (width - len(prompt)) + (1,) * len(prompt) for prompt in prompts], device=device)
    cache = growing_cache(model.config)
    logits = _forward(model, tokens, mask, cache)
    state = _State(list(rows), cache, mask, logits, *_sampling_tensors(rows, device))
    places = {prompt: place for place, prompt in enumerate(prompts)}
    index = torch.tensor([places[row.prompt_ids] for row in rows], device=device)
    if len(prompts) < len(rows):
        cache.batch_select_indices(index)
        state.mask_BT, state.logits_BV = mask[index], logits[index]
    return state


def _sampling_tensors(rows: Sequence[Row], device: torch.device) -> Iterable[torch.Tensor]:
    yield torch.tensor([max(row.sampling.temperature, GREEDY_TEMPERATURE) for row in rows], device=device)
    yield torch.tensor([row.sampling.top_p for row in rows], device=device, dtype=torch.float64)
    longest = max(row.max_tokens for row in rows)
    uniforms = np.stack([np.random.Generator(np.random.Philox(row.seed)).random(longest) for row in rows])
    yield torch.from_numpy(uniforms).to(device)


def _advance(model: PreTrainedModel, state: _State, tokens_B: torch.Tensor) -> None:
    """Read one more token of every row."""
    state.mask_BT = torch.cat([state.mask_BT, torch.ones_like(tokens_B)[:, None]], dim=1)
    state.logits_BV = _forward(model, tokens_B[:, None], state.mask_BT, state.cache)


def _forward(model: PreTrainedModel, tokens: torch.Tensor, mask_BT: torch.Tensor, cache: DynamicCache) -> torch.Tensor:
    """The last position's logits [B, V]; positions count real tokens only."""
    positions = (mask_BT.cumsum(-1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
    output = model(
        input_ids=tokens,
        attention_mask=mask_BT,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return output.logits[:, -1].float()
