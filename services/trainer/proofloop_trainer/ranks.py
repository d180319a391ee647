"""Several processes that train one model together, with its weights sharded by FSDP2.

The first process leads: only it has the store, the engine and the command line. It broadcasts each
call that needs the others as an `Order`, and they make the same call on their own learners
(`launch`). In a process that was started alone, all functions here do nothing at almost no cost.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Literal, TypeVar

import torch
from accelerate import FullyShardedDataParallelPlugin
from pydantic import Field
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from proofloop.errors import ConfigError, ProofloopError
from proofloop.schema.records import Record

T = TypeVar("T")

BETWEEN_ORDERS = timedelta(days=30)
"""The longest wait for the next order: between orders, the first process may sample for hours."""

_orders: Any = None
"""The process group that carries orders; None in a process that was started alone."""

_is_broken = False
"""Whether this process alone left a step with an error: the others then wait in that step."""


class Order(Record):
    """A call of the first process that the others make too, on the learner that they opened by the
    same order.
    """

    call: Literal["open", "resume", "step", "gather", "close", "fine_tune", "end"]
    learner: str = ""
    arguments: dict[str, Any] = Field(default_factory=dict)


def join() -> None:
    """Connect to the other processes that torchrun or accelerate started.

    Raises ConfigError if the machine has GPUs, but fewer than processes.
    """
    global _orders
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    gpus = torch.cuda.device_count()
    if 0 < gpus < processes:
        raise ConfigError(
            f"{processes} processes on this machine, but torch sees {gpus} GPU(s)",
            f"start {gpus} on this machine (num_processes is the number on all machines), or use"
            " the CPU: CUDA_VISIBLE_DEVICES=",
        )
    if gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # Orders, tallies and checkpoint tensors are on the CPU, gradients on the model's device.
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    _orders = distributed.new_group(backend="gloo", timeout=BETWEEN_ORDERS)


def leave() -> None:
    """Disconnect from the other processes, and end the threads that carried orders.

    A thread may still hold the last order and needs the interpreter to release it. If the
    interpreter ends first, the process aborts ("terminate called without an active exception",
    pytorch/pytorch#179291).
    """
    global _orders
    distributed.destroy_process_group()
    _orders = None  # drops the last reference: the destructor waits for the threads


def count() -> int:
    """The number of processes that train together."""
    return 1 if _orders is None else distributed.get_world_size()


def rank() -> int:
    """The number of this process; 0 leads."""
    return 0 if _orders is None else distributed.get_rank()


def check_launch() -> None:
    """Raise ConfigError if several processes were started without `launch`: each would publish its
    own model.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started > 1 and _orders is None:
        raise ConfigError(
            f"this is one of {started} processes that were not started as one trainer",
            "start them with: accelerate launch --config_file FILE -m proofloop_trainer.launch"
            " iterate CURRICULUM.toml",
        )


def mark_broken() -> None:
    """Record that this process alone left a step with an error. The others still wait in that step
    and can receive no order.
    """
    global _is_broken
    _is_broken = _orders is not None


def is_broken() -> bool:
    """Whether the others wait in a step that this process left with an error."""
    return _is_broken


def broadcast(order: Order) -> None:
    """Broadcast an order from the first process; does nothing in the others. Raises ProofloopError
    after `mark_broken`.
    """
    if _orders is None or rank() > 0:
        return
    if _is_broken:
        raise ProofloopError(
            "an error in this process left the other processes waiting in a step; start the command"
            " again to continue from the last checkpoint"
        )
    body = torch.frombuffer(bytearray(order.model_dump_json().encode()), dtype=torch.uint8)
    distributed.broadcast(torch.tensor([len(body)]), src=0, group=_orders)
    distributed.broadcast(body, src=0, group=_orders)


def receive() -> Order:
    """Wait for the next order of the first process."""
    length = torch.zeros(1, dtype=torch.int64)
    distributed.broadcast(length, src=0, group=_orders)
    body = torch.empty(int(length.item()), dtype=torch.uint8)
    distributed.broadcast(body, src=0, group=_orders)
    return Order.model_validate_json(body.numpy().tobytes())


def barrier() -> None:
    """Wait until all processes are here. Files that one of them then deletes have been read by
    all.
    """
    if _orders is not None:
        distributed.barrier(group=_orders)


def share(things: Sequence[T], to: int | None = None) -> Sequence[T]:
    """The share of one process, by default this one: every `count()`-th item from its rank on."""
    return things[rank() if to is None else to :: count()]


def summed(values: Iterable[float]) -> list[float]:
    """The sum of each value over all processes."""
    mine = list(values)
    if _orders is None:
        return mine
    together = torch.tensor(mine, dtype=torch.float64)
    distributed.all_reduce(together)
    return together.tolist()


def gathered(rows: Sequence[Tensor], lengths: Sequence[int]) -> list[Tensor]:
    """The rows of all processes in the order before `share` distributed them; `lengths` are the
    lengths of all rows.
    """
    if _orders is None or not lengths:
        return list(rows)
    whole = pad_sequence([torch.zeros(length) for length in lengths], batch_first=True)
    for place, row in zip(share(range(len(lengths))), rows, strict=True):
        whole[place, : len(row)] = row
    distributed.all_reduce(whole)
    return [row[:length] for row, length in zip(whole, lengths, strict=True)]


def device() -> torch.device:
    """The device that this process computes on. Offloaded weights are on the CPU between uses."""
    return (
        torch.device("cuda", torch.cuda.current_device())
        if torch.cuda.is_available()
        else torch.device("cpu")
    )


def place(model: PreTrainedModel) -> None:
    """Move the model to its device, sharded layer by layer over the processes as accelerate's
    configuration says.
    """
    if _orders is None:
        model.to(device())  # type: ignore[arg-type]  # torch's stubs and transformers' wrapper disagree
        return
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2)
    is_offloaded = isinstance(plugin.cpu_offload, CPUOffloadPolicy)
    options: dict[str, Any] = {
        "mesh": init_device_mesh(device().type, (count(),)),
        "mp_policy": _precision(os.environ.get("ACCELERATE_MIXED_PRECISION", "no")),
        "offload_policy": CPUOffloadPolicy(pin_memory=torch.cuda.is_available())
        if is_offloaded
        else OffloadPolicy(),
    }
    for layer in _layers(model):
        if plugin.activation_checkpointing:
            # transformers' own checkpointing needs the training mode, see `policy.load_model`
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
        fully_shard(layer, reshard_after_forward=plugin.reshard_after_forward, **options)
    fully_shard(model, **options)


def _precision(name: str) -> MixedPrecisionPolicy:
    """The policy for accelerate's `mixed_precision`.

    accelerate's own policy would round the log-probabilities and sum the processes' gradients in 16
    bits.
    """
    if name not in ("no", "bf16"):
        hint = (
            "use bf16, or no for 32 bits; fp16 needs loss scaling, which the trainer does not have"
        )
        raise ConfigError(
            f"mixed_precision {name!r} in accelerate's configuration is not supported", hint
        )
    if name == "bf16":
        return MixedPrecisionPolicy(torch.bfloat16, reduce_dtype=torch.float32)
    return MixedPrecisionPolicy()


def _layers(model: PreTrainedModel) -> list[nn.Module]:
    names = set(model._no_split_modules or ())
    return [module for module in model.modules() if type(module).__name__ in names]


def full_tensors(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Gather the complete tensors on the CPU of the first process; the result is empty in the
    others.
    """
    kept = {}
    for name, tensor in tensors:
        together = tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor
        if rank() == 0:
            kept[name] = together
    return kept


def shard_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Shard a complete tensor like the parameter and move it to the parameter's device."""
    if isinstance(parameter, DTensor):
        # The mesh is on the GPU, but offloaded weights and their moments are on the CPU.
        return distribute_tensor(tensor, parameter.device_mesh, parameter.placements).to(
            parameter.device
        )
    return tensor.to(parameter.device)
