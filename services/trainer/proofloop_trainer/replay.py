"""Routing replay: in training a token goes to the experts that it went to when it was sampled.

Only the choice is taken over: what a chosen expert counts for, and what the router learns, is this forward pass's own.

Legend: B sequences, T positions, N = B * T tokens, E = L * K: the K experts of each of L layers, X experts in all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from proofloop_serving.routing import routers

FREE = -1
"""Stands for a choice that nobody recorded: the router makes its own."""


class Replay:
    """Makes the routers of a model choose as `use` says; a dense model has none, and nothing changes."""

    def __init__(self, model: nn.Module) -> None:
        self._experts_BTE: Tensor | None = None
        self._width = 0
        for router in routers(model):
            begin, self._width = self._width, self._width + int(router.top_k)
            router.forward = partial(self._route, router.forward, slice(begin, self._width), int(router.num_experts))

    def use(self, experts_BTE: Tensor | None) -> None:
        """From now on, also where the backward pass computes a layer again. None: the routers choose freely."""
        fits = experts_BTE is not None and experts_BTE.size(-1) == self._width
        self._experts_BTE = experts_BTE if fits else None

    def _route(self, forward: Callable[..., Any], own: slice, experts: int, *args: Any, **kwargs: Any) -> Any:
        if self._experts_BTE is None:
            return forward(*args, **kwargs)
        with Chosen(self._experts_BTE[..., own].flatten(0, 1), experts):
            return forward(*args, **kwargs)


class Chosen(TorchFunctionMode):
    """Within it, the best K of X experts for each token [N, X] are those given [N, K].

    All routers of transformers choose by `topk`, after whatever they do to the scores first.
    """

    def __init__(self, chosen_NK: Tensor, experts: int) -> None:
        super().__init__()
        self._chosen_NK, self._experts = chosen_NK, experts

    def __torch_function__(
        self, function: Any, types: Any, args: Iterable[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = function(*args, **(kwargs or {}))
        scores = next(iter(args), None)
        is_choice = function in (torch.topk, Tensor.topk) and scores.ndim == 2 and scores.size(1) == self._experts
        if not is_choice:
            return found
        chosen_NK = torch.where(self._chosen_NK == FREE, found[1], self._chosen_NK)
        return torch.return_types.topk((scores.gather(1, chosen_NK), chosen_NK))
