"""The memory of models: frees unused models, and turns a lack of GPU memory into a clear error."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from proofloop.errors import ConfigError, ProofloopError, Reject
from proofloop_trainer import ranks

WAYS_OUT = (
    "lower tokens_per_pass; lower the engine's models_kept or max_batch; or use `accelerate launch`"
    " with activation"
    " checkpointing or offloading (docs/how-to/train.md)"
)
"""Hints for a GPU with too little memory."""


def make_room() -> None:
    """Free the memory of unreferenced models.

    TRL's fused head and FSDP2's hooks form reference cycles with their model. Python's garbage
    collector starts by the number of objects, so it does not notice a full GPU.
    """
    gc.collect()


@contextmanager
def enough_for(what: str) -> Iterator[None]:
    """Raise ProofloopError with hints if the GPU runs out of memory in the block. `what` describes
    the block.

    In a following process the original error ends the process, so that no other waits for it. After
    an error in the first process alone, it sends no more orders.
    """
    try:
        yield
    except (ConfigError, Reject):
        raise  # all processes raise it alike
    except BaseException as error:
        ranks.mark_broken()
        if ranks.rank() > 0 or not isinstance(error, torch.OutOfMemoryError):
            raise
        seen = str(error).partition(" Of the allocated")[0]
        raise ProofloopError(f"{what}: {seen} To reduce memory: {WAYS_OUT}") from error
