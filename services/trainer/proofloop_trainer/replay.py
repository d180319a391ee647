"""Routing replay: in training, a token goes to the experts that it went to in sampling.

Only the choice of experts is replayed. The experts' weights and the router's gradient are those of
the training pass.

Legend: B sequences, T positions, N = B * T tokens, E = L * K (K experts in each of L layers), X
experts in a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from proofloop_serving.decoding.routing import routers

FREE = -1
"""Marks a choice that was not recorded: the router chooses itself."""


class Replay:
    """Makes the routers of a model choose the experts given to `use`. A dense model has no routers
    and is unchanged.
    """

    def __init__(self, model: nn.Module) -> None:
        self._experts_BTE: Tensor | None = None
        self._width = 0
        for router in routers(model):
            begin = self._width
            # A module's attributes have the type "Tensor | Module" for mypy.
            chosen, experts = cast(int, router.top_k), cast(int, router.num_experts)
            self._width += chosen
            own = slice(begin, self._width)
            router.forward = partial(self._route, router.forward, own, experts)

    def use(self, experts_BTE: Tensor | None) -> None:
        """Replay these experts from now on, also when the backward pass recomputes a layer; None:
        choose freely.
        """
        fits = experts_BTE is not None and experts_BTE.size(-1) == self._width
        self._experts_BTE = experts_BTE if fits else None

    def _route(
        self, forward: Callable[..., Any], own: slice, experts: int, *args: Any, **kwargs: Any
    ) -> Any:
        if self._experts_BTE is None:
            return forward(*args, **kwargs)
        with Chosen(self._experts_BTE[..., own].flatten(0, 1), experts):
            return forward(*args, **kwargs)


class Chosen(TorchFunctionMode):
    """A context in which `topk` over scores [N, X] chooses the given experts [N, K].

    All routers of transformers choose by `topk` as their last step.
    """

    def __init__(self, chosen_NK: Tensor, experts: int) -> None:
        super().__init__()
        self._chosen_NK = chosen_NK
        self._experts = experts

    def __torch_function__(
        self,
        function: Any,
        types: Any,
        args: Iterable[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        found = function(*args, **(kwargs or {}))
        if function not in (torch.topk, Tensor.topk):
            return found
        scores: Tensor = next(iter(args))
        if scores.ndim != 2 or scores.size(1) != self._experts:
            return found
        chosen_NK = torch.where(self._chosen_NK == FREE, found[1], self._chosen_NK)
        return torch.return_types.topk((scores.gather(1, chosen_NK), chosen_NK))
