"""Reads prompts into KV caches and keeps them: the n critiques of a proof read their common prompt
once.

Shapes: B prompts, T positions, V vocabulary, E experts (see `routing`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache, PreTrainedModel

from proofloop_serving.decoding.kv_cache import new_cache, select_rows, shallow_copy
from proofloop_serving.decoding.routing import Recorder


@dataclass(frozen=True, eq=False)
class ReadPrompts:
    """Prompts that were read together, with their places in the tensors. The tensors are never
    written to.
    """

    places: dict[tuple[int, ...], int]
    cache: DynamicCache
    mask_BT: torch.Tensor
    logits_BV: torch.Tensor  # after the last token
    experts_BTE: torch.Tensor | None = None  # for a mixture of experts: see routing

    def cache_of(self, index: torch.Tensor) -> DynamicCache:
        """A copy of the cache with the rows of `index`."""
        selected = shallow_copy(self.cache)
        select_rows(selected, index)
        return selected


class PromptCache:
    """Keeps up to `tokens_kept` tokens of prompts, padding included, and drops the oldest. For one
    thread.
    """

    def __init__(self, tokens_kept: int) -> None:
        self._tokens_kept = tokens_kept
        self._kept: deque[ReadPrompts] = deque()
        self._by_prompt: dict[tuple[int, ...], ReadPrompts] = {}

    def find(self, prompt_ids: tuple[int, ...]) -> ReadPrompts | None:
        return self._by_prompt.get(prompt_ids)

    def add(self, read: ReadPrompts) -> None:
        """Keep the prompts of one pass, unless they alone are too large."""
        if read.mask_BT.numel() > self._tokens_kept:
            return
        self._kept.append(read)
        self._by_prompt.update(dict.fromkeys(read.places, read))
        self.forget(self.tokens - self._tokens_kept)

    @property
    def tokens(self) -> int:
        """The number of tokens kept, padding included."""
        return sum(read.mask_BT.numel() for read in self._kept)

    def forget(self, tokens: int) -> int:
        """Drop the oldest prompts until at least `tokens` tokens are gone or none is left. Returns
        the number of dropped tokens.
        """
        gone = 0
        while gone < tokens and self._kept:
            oldest = self._kept.popleft()
            gone += oldest.mask_BT.numel()
            for prompt in oldest.places:
                del self._by_prompt[prompt]
        return gone


def passes(prompts: Sequence[tuple[int, ...]], tokens: int | None) -> list[list[tuple[int, ...]]]:
    """Group prompts of similar length so that each group has at most `tokens` padded tokens, or a
    single prompt.
    """
    groups: list[list[tuple[int, ...]]] = []
    for prompt in sorted(prompts, key=len, reverse=True):
        if groups and (tokens is None or (len(groups[-1]) + 1) * len(groups[-1][0]) <= tokens):
            groups[-1].append(prompt)
        else:
            groups.append([prompt])
    return groups


def read_prompts(
    model: PreTrainedModel, prompts: Sequence[tuple[int, ...]], recorder: Recorder
) -> ReadPrompts:
    """Read distinct prompts in one forward pass, padded on the left."""
    width = max(map(len, prompts))
    tokens = torch.tensor(
        [(0,) * (width - len(prompt)) + prompt for prompt in prompts], device=model.device
    )
    mask = torch.tensor(
        [(0,) * (width - len(each)) + (1,) * len(each) for each in prompts], device=model.device
    )
    cache = new_cache(model.config)
    logits = forward(model, tokens, mask, cache)
    places = {prompt: place for place, prompt in enumerate(prompts)}
    return ReadPrompts(places, cache, mask, logits, recorder.take(len(prompts)))


def forward(
    model: PreTrainedModel, tokens: torch.Tensor, mask_BT: torch.Tensor, cache: DynamicCache
) -> torch.Tensor:
    """The logits [B, V] of the last position. Positions count only real tokens."""
    positions = (mask_BT.cumsum(-1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
    output = model(
        input_ids=tokens,
        attention_mask=mask_BT,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    logits_B1V: torch.Tensor = output.logits
    return logits_B1V[:, -1].float()
