"""Records the experts that a mixture of experts chooses for each sampled token. Training replays
them.

Rounding differences between sampler and trainer sometimes change the choice of experts, which makes
the token's probability jump.

Legend: B rows, T positions, E = L * K (K experts in each of the L layers with a router).
"""

from __future__ import annotations

import torch
from torch import nn


def routers(model: nn.Module) -> list[nn.Module]:
    """The modules of a transformers model that choose experts, in the order of its layers."""
    return [
        module
        for module in model.modules()
        if hasattr(module, "top_k") and "Router" in type(module).__name__
    ]


class Recorder:
    """Records the choices of a model's routers in its last forward pass. There are none for a dense
    model, and for one whose routers do not return their choice.
    """

    def __init__(self, model: nn.Module) -> None:
        self._chosen: list[torch.Tensor] = []
        for router in routers(model):
            router.register_forward_hook(self._record)

    def _record(self, router: nn.Module, inputs: object, output: tuple[torch.Tensor, ...]) -> None:
        choice = output[-1]  # most return logits, weights and choice; Llama 4's returns no choice
        if not choice.is_floating_point():
            self._chosen.append(choice)

    def take(self, rows: int) -> torch.Tensor | None:
        """The recorded choices [B, T, E], which are then cleared; None if no router returned
        its choice.
        """
        chosen = self._chosen
        self._chosen = []
        return (
            torch.cat([each.view(rows, -1, each.shape[-1]) for each in chosen], dim=-1)
            if chosen
            else None
        )

    def forget(self) -> None:
        """Drop the choices of a forward pass that failed."""
        self._chosen.clear()
