"""One update of a model's weights from its gradients, in one process or in several."""

from __future__ import annotations

from math import isfinite

from torch import nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from proofloop.errors import Reject


def update(
    model: nn.Module, optimizer: Optimizer, loss: float, *, max_norm: float, what: str
) -> float:
    """Scale the gradients down to `max_norm` and update the weights. Returns the norm before.

    Raises Reject, naming `what`, if the loss or the norm is not finite: the weights would be lost,
    and a repetition ends the same.
    """
    found = clip_grad_norm_(model.parameters(), max_norm)
    norm = (found.full_tensor() if isinstance(found, DTensor) else found).item()
    if not (isfinite(loss) and isfinite(norm)):
        raise Reject(
            f"{what}: loss {loss} and gradient norm {norm}; training stops, and nothing is"
            " published of this step"
        )
    optimizer.step()
    return norm
