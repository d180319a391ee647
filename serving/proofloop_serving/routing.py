"""Which experts a mixture of experts sends each token to, kept while it is sampled so that training can do the same.

Two programs that differ by a rounding error choose other experts now and then, and the token's probability jumps.

Legend: B rows, T positions, E = L * K: the K experts of each of the L layers that have a router.
"""

from __future__ import annotations

import torch
from torch import nn


def routers(model: nn.Module) -> list[nn.Module]:
    """The modules of a transformers model that choose experts, in the order of its layers."""
    return [module for module in model.modules() if hasattr(module, "top_k") and "Router" in type(module).__name__]


class Recorder:
    """What the routers of a model chose in its last forward pass; nothing for a dense model."""

    def __init__(self, model: nn.Module) -> None:
        self._chosen: list[torch.Tensor] = []
        for router in routers(model):
            router.register_forward_hook(self._see)

    def _see(self, router: nn.Module, inputs: object, output: tuple[torch.Tensor, ...]) -> None:
        self._chosen.append(output[-1])  # logits, weights, choice

    def take(self, rows: int) -> torch.Tensor | None:
        """The choices [B, T, E], once; None where there are no routers."""
        chosen, self._chosen = self._chosen, []
        return torch.cat([each.view(rows, -1, each.shape[-1]) for each in chosen], dim=-1) if chosen else None

    def forget(self) -> None:
        """After a forward pass that failed."""
        self._chosen.clear()
