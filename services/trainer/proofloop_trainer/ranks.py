"""Several processes that train one model together, its weights cut up among them by FSDP2.

The first process leads: it alone has the store, the engine and the command line. Each of its calls that needs the
others is told to them as an `Order`, and they make the same call on a learner of their own (`launch`). A process that
was started alone leads nobody; everything here then costs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
from accelerate import FullyShardedDataParallelPlugin
from pydantic import Field
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from proofloop.errors import ConfigError, ProofloopError
from proofloop.records import Record

T = TypeVar("T")

BETWEEN_ORDERS = timedelta(days=30)
"""How long a process waits for its next order: the first one samples in between, and may do so for hours."""

_orders: Any = None  # the process group that orders travel in; None in a process of its own

_is_parted = False  # the others wait for this process in a step that it broke off

closed: list[int] = []
"""The learners that went since the last order: the next one says so, and the others let go of theirs."""


class Order(Record):
    """A call of the first process that the others make too. `closed`: the learners that it has no more use for."""

    call: Literal["open", "resume", "step", "gather", "fine_tune", "end"]
    learner: int = 0
    arguments: dict[str, Any] = Field(default_factory=dict)
    closed: tuple[int, ...] = ()


def join() -> None:
    """Meet the other processes that torchrun or accelerate started.

    Raises ConfigError where there are GPUs, but not one for each of this machine's processes.
    """
    global _orders
    processes, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if 0 < gpus < processes:
        raise ConfigError(
            f"{processes} processes on this machine, which shows {gpus} GPU(s)",
            f"start {gpus} here (num_processes counts those of all machines), or use the CPU: CUDA_VISIBLE_DEVICES=",
        )
    if gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # Orders, tallies and tensors on their way to a checkpoint are on the CPU, gradients where the model is.
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    _orders = distributed.new_group(backend="gloo", timeout=BETWEEN_ORDERS)


def leave() -> None:
    """Part from the others, and end the threads that carried orders.

    The last order may still be in a thread's hands, which needs the interpreter to let go of it: one that ends first
    takes the process with it ("terminate called without an active exception", pytorch/pytorch#179291).
    """
    global _orders
    distributed.destroy_process_group()
    _orders = None  # the last reference: its destructor waits for the threads


def count() -> int:
    """How many processes train together."""
    return 1 if _orders is None else distributed.get_world_size()


def rank() -> int:
    """Which of them this is; 0 leads."""
    return 0 if _orders is None else distributed.get_rank()


def check_launch() -> None:
    """Raise ConfigError in one of several processes that know nothing of each other: each would publish a model."""
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started > 1 and _orders is None:
        raise ConfigError(
            f"this is one of {started} processes that were not started as one trainer",
            "accelerate launch --config_file FILE -m proofloop_trainer.launch iterate CURRICULUM.toml",
        )


def part() -> None:
    """After an error of this process alone: the others wait in the midst of what it broke off, and hear no order."""
    global _is_parted
    _is_parted = _orders is not None


def tell(order: Order) -> None:
    """From the first process to the others; from any other it is nothing. Raises ProofloopError after `part`."""
    if _orders is None or rank() > 0:
        return
    if _is_parted:
        raise ProofloopError(
            "an error in this process left the others waiting in the midst of a step; start the command again, and it"
            " goes on from the last checkpoint"
        )
    said = order.model_copy(update={"closed": tuple(closed)})
    closed.clear()
    body = torch.frombuffer(bytearray(said.model_dump_json().encode()), dtype=torch.uint8)
    distributed.broadcast(torch.tensor([len(body)]), src=0, group=_orders)
    distributed.broadcast(body, src=0, group=_orders)


def hear() -> Order:
    """Wait for what the first process tells next."""
    length = torch.zeros(1, dtype=torch.int64)
    distributed.broadcast(length, src=0, group=_orders)
    body = torch.empty(int(length.item()), dtype=torch.uint8)
    distributed.broadcast(body, src=0, group=_orders)
    return Order.model_validate_json(body.numpy().tobytes())


def meet() -> None:
    """Wait until every process is here: what one of them then takes away, all have read."""
    if _orders is not None:
        distributed.barrier(group=_orders)


def dealt(things: Sequence[T], to: int | None = None) -> Sequence[T]:
    """Every so manieth thing: the share of one process, this one unless said."""
    return things[rank() if to is None else to :: count()]


def summed(values: Iterable[float]) -> list[float]:
    """Each value summed over all processes."""
    mine = list(values)
    if _orders is None:
        return mine
    together = torch.tensor(mine, dtype=torch.float64)
    distributed.all_reduce(together)
    return together.tolist()


def collected(rows: Sequence[Tensor], lengths: Sequence[int]) -> list[Tensor]:
    """All processes' rows in the order in which `dealt` dealt them; `lengths` are those of all."""
    if _orders is None or not lengths:
        return list(rows)
    whole = pad_sequence([torch.zeros(length) for length in lengths], batch_first=True)
    for place, row in zip(dealt(range(len(lengths))), rows, strict=True):
        whole[place, : len(row)] = row
    distributed.all_reduce(whole)
    return [row[:length] for row, length in zip(whole, lengths, strict=True)]


def device() -> torch.device:
    """Where this process computes. Weights may wait elsewhere: on the CPU, where they are offloaded."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def place(model: PreTrainedModel) -> None:
    """Put the model where it computes, cut up among the processes layer by layer as accelerate's configuration says."""
    if _orders is None:
        model.to(device())  # type: ignore[arg-type]  # torch's stubs and transformers' wrapper disagree
        return
    said = FullyShardedDataParallelPlugin(fsdp_version=2)
    if said.activation_checkpointing:
        model.activation_checkpointing_enable()
    is_offloaded = isinstance(said.cpu_offload, CPUOffloadPolicy)
    options: dict[str, Any] = {
        "mesh": init_device_mesh(device().type, (count(),)),
        "mp_policy": _precision(os.environ.get("ACCELERATE_MIXED_PRECISION", "no")),
        "offload_policy": CPUOffloadPolicy(pin_memory=torch.cuda.is_available()) if is_offloaded else OffloadPolicy(),
    }
    for layer in _layers(model):
        fully_shard(layer, reshard_after_forward=said.reshard_after_forward, **options)
    fully_shard(model, **options)


def _precision(said: str) -> MixedPrecisionPolicy:
    """accelerate's own policy would round the log-probabilities too, and sum the processes' gradients in 16 bits."""
    if said not in ("no", "bf16"):
        hint = "bf16, or no for 32 bits: fp16 needs its loss scaled, which nobody does here"
        raise ConfigError(f"mixed_precision {said!r} of accelerate's configuration", hint)
    return (
        MixedPrecisionPolicy(torch.bfloat16, reduce_dtype=torch.float32) if said == "bf16" else MixedPrecisionPolicy()
    )


def _layers(model: PreTrainedModel) -> list[nn.Module]:
    names = set(model._no_split_modules or ())
    return [module for module in model.modules() if type(module).__name__ in names]


def whole(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors put together again, on the CPU of the first process; the others help and get nothing."""
    kept = {}
    for name, tensor in tensors:
        together = tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor
        if rank() == 0:
            kept[name] = together
    return kept


def cut_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor where the parameter is, cut up as it is."""
    if isinstance(parameter, DTensor):
        # The mesh computes on a GPU; weights that are offloaded have their moments beside them.
        return distribute_tensor(tensor, parameter.device_mesh, parameter.placements).to(parameter.device)
    return tensor.to(parameter.device)
