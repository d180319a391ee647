"""Memory that models take: given back when they are done with, and a clear word where there is too little of it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from proofloop.errors import ProofloopError
from proofloop_trainer import ranks

WAYS_OUT = (
    "a smaller tokens_per_pass; an engine beside it that keeps less (models_kept, max_batch); or `accelerate launch`"
    " with activation checkpointing or offloading: docs/training.md"
)


def make_room() -> None:
    """Free the models that nobody has any more.

    TRL's fused head and FSDP2's hooks refer back to their model, and a GPU that fills up is nothing to Python's own
    search for such cycles: it counts objects on the CPU.
    """
    gc.collect()


@contextmanager
def enough_for(what: str) -> Iterator[None]:
    """Raise ProofloopError with the ways out where a GPU has too little memory for this.

    Not in a process that follows: there the error stays, and ends the process, so that the others wait for nothing.
    The first one tells them nothing more after an error of its own.
    """
    try:
        yield
    except ProofloopError:
        raise  # in all processes alike
    except BaseException as error:
        ranks.part()
        if ranks.rank() > 0 or not isinstance(error, torch.OutOfMemoryError):
            raise
        seen = str(error).partition(" Of the allocated")[0]
        raise ProofloopError(f"{what}: {seen} Ways out: {WAYS_OUT}") from error
