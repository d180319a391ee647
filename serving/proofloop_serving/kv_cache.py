"""A KV cache with preallocated room for new tokens. Without it, each token copies the cache, which
takes most of the time on a CPU.
"""

from __future__ import annotations

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
        self.keys, self.values = (buffer[..., : filled + added, :] for buffer in self._buffers)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        super().batch_select_indices(indices)
        self._buffers = None  # the selection is a copy

    def replace(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Use these keys and values from now on; they may be views of tensors that others use."""
        self.keys = keys
        self.values = values
        self._buffers = None


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


def trim_left(cache: DynamicCache, tokens: int) -> None:
    """Drop the first `tokens` columns of all rows."""
    for layer in cache.layers:
        layer.replace(layer.keys[..., tokens:, :], layer.values[..., tokens:, :])


def joined(first: DynamicCache, second: DynamicCache) -> DynamicCache:
    """Append the rows of `second` to `first`; the shorter ones are padded on the left."""
    width = max(first.get_seq_length(), second.get_seq_length())
    for layer, other in zip(first.layers, second.layers, strict=True):
        keys = _stacked(layer.keys, other.keys, width)
        values = _stacked(layer.values, other.values, width)
        layer.replace(keys, values)
    return first


def _stacked(upper: torch.Tensor, lower: torch.Tensor, width: int) -> torch.Tensor:
    stacked = upper.new_zeros(
        upper.shape[0] + lower.shape[0], upper.shape[1], width, upper.shape[3]
    )
    stacked[: upper.shape[0], :, width - upper.shape[2] :] = upper
    stacked[upper.shape[0] :, :, width - lower.shape[2] :] = lower
    return stacked
