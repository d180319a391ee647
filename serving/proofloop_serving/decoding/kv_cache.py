"""A KV cache with preallocated room for new tokens. Without it, each token copies the cache, which
takes most of the time on a CPU.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer

SPARE_TOKENS = 64


def new_cache(config: PretrainedConfig) -> DynamicCache:
    """An empty cache for this model, with its plain layers replaced by `PreallocatedLayer`."""
    cache = DynamicCache(config=config)
    cache.layers = [
        PreallocatedLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache


class PreallocatedLayer(DynamicLayer):
    """`keys` and `values` are views of the filled part of two buffers [batch, heads, tokens,
    width].
    """

    def __init__(self) -> None:
        super().__init__()
        self._buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        filled = self.get_seq_length()
        added = key_states.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self._buffers is None or self._buffers[0].shape[-2] < filled + added:
            # the first read is a prompt, which the prompt cache keeps and copies
            spare = SPARE_TOKENS if filled else 0
            self._buffers = (
                _enlarged(self.keys, key_states, filled + added + spare),
                _enlarged(self.values, value_states, filled + added + spare),
            )
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[..., filled : filled + added, :] = states
        return self.use(self._buffers, filled + added)

    def use(
        self, buffers: tuple[torch.Tensor, torch.Tensor], filled: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Use these buffers, of which the first tokens are filled. Returns the filled parts."""
        self._buffers = buffers
        keys, values = (buffer[..., :filled, :] for buffer in buffers)
        self.keys, self.values = keys, values
        return keys, values

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Copy the selected rows once, to buffers with room for new tokens."""
        filled = self.get_seq_length()
        rows = len(beam_idx)
        buffers = _with_room(self.keys, rows, filled), _with_room(self.values, rows, filled)
        for buffer, states in zip(buffers, (self.keys, self.values), strict=True):
            torch.index_select(states, 0, beam_idx, out=buffer[..., :filled, :])
        self.use(buffers, filled)


def _with_room(like: torch.Tensor, rows: int, tokens: int) -> torch.Tensor:
    """An unfilled buffer for these tokens and SPARE_TOKENS more."""
    return like.new_empty(rows, like.shape[1], tokens + SPARE_TOKENS, like.shape[3])


def _enlarged(past: torch.Tensor, states: torch.Tensor, tokens: int) -> torch.Tensor:
    buffer = states.new_empty(*states.shape[:-2], tokens, states.shape[-1])
    if past.numel():
        buffer[..., : past.shape[-2], :] = past
    return buffer


def can_join(cache: DynamicCache) -> bool:
    """Whether rows of another cache can join this one: not if a layer has a sliding window or a
    state.
    """
    return all(type(layer) is PreallocatedLayer for layer in cache.layers)


def shallow_copy(cache: DynamicCache) -> DynamicCache:
    """A cache with the same tensors, whose rows can be selected without a change of `cache`."""
    copied = copy.copy(cache)
    copied.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in copied.layers:
        states = {name: value for name, value in vars(layer).items() if isinstance(value, dict)}
        vars(layer).update({name: dict(tensors) for name, tensors in states.items()})
    return copied


def select_rows(cache: DynamicCache, index: torch.Tensor) -> None:
    """Keep only the rows of `index`, in its order; a row may occur several times."""
    # batch_select_indices knows no states of linear attention and convolutions
    cache.reorder_cache(cast(torch.LongTensor, index))


def trim_left(cache: DynamicCache, tokens: int) -> None:
    """Drop the first `tokens` columns of all rows."""
    for layer in cache.layers:
        kept = layer.keys[..., tokens:, :], layer.values[..., tokens:, :]
        layer.use(kept, kept[0].shape[-2])


def replace_rows(cache: DynamicCache, places: torch.Tensor, new: DynamicCache) -> None:
    """Put the rows of `new` in these places, aligned on the right. What else the places hold must
    be masked.
    """
    begin = cache.get_seq_length() - new.get_seq_length()
    for layer, other in zip(cache.layers, new.layers, strict=True):
        layer.keys[..., begin:, :].index_copy_(0, places, other.keys)
        layer.values[..., begin:, :].index_copy_(0, places, other.values)


def joined(first: DynamicCache, second: DynamicCache) -> DynamicCache:
    """Append the rows of `second` to `first`; the shorter ones are padded on the left."""
    width = max(first.get_seq_length(), second.get_seq_length())
    for layer, other in zip(first.layers, second.layers, strict=True):
        keys = _stacked(layer.keys, other.keys, width)
        values = _stacked(layer.values, other.values, width)
        layer.use((keys, values), width)
    return first


def _stacked(upper: torch.Tensor, lower: torch.Tensor, width: int) -> torch.Tensor:
    stacked = _with_room(upper, len(upper) + len(lower), width)
    for rows, states in ((stacked[: len(upper)], upper), (stacked[len(upper) :], lower)):
        padding = width - states.shape[2]
        rows[:, :, :padding] = 0  # masked, but NaN times 0 is NaN
        rows[:, :, padding:width] = states
    return stacked
