"""A cache of the prompts that a model has read: the n critiques of a proof read their common prompt
once.
"""

from __future__ import annotations

import copy
from collections import deque
from dataclasses import dataclass

import torch
from transformers import DynamicCache


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
        selected = copy.copy(self.cache)
        selected.layers = [copy.copy(layer) for layer in self.cache.layers]
        selected.batch_select_indices(index)
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
