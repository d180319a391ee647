"""The GPUs that torch sees, and the device that training uses: for `proofloop doctor`."""

from __future__ import annotations

from collections.abc import Sequence

import torch

GIB = 2**30


def device() -> str:
    """The devices of this machine and the one that training uses, in one line."""
    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return in_words(torch.__version__, [(gpu.name, gpu.total_memory) for gpu in gpus])


def in_words(version: str, gpus: Sequence[tuple[str, int]]) -> str:
    """The line for these GPUs, each with name and memory in bytes.

    A process trains on one GPU in 32 bits; several GPUs, and bf16, need `accelerate launch`.
    """
    if not gpus:
        return f"{version} sees no GPU: training uses the CPU"
    seen = ", ".join(f"{name} ({memory / GIB:.0f} GiB)" for name, memory in gpus)
    used = "the GPU" if len(gpus) == 1 else "the first GPU"
    return (
        f"{version} sees {seen}: training uses {used}, in 32 bits unless started by `accelerate"
        " launch`"
    )
