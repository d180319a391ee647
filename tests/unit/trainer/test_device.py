"""What `proofloop doctor` says of torch's devices, and how the processes that train on them begin
and end.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("proofloop_trainer", reason="proofloop-trainer is not installed")

from proofloop.errors import ConfigError, ProofloopError, Reject, Retry, StoreError
from proofloop_trainer import ranks
from proofloop_trainer.device import GIB, in_words
from proofloop_trainer.launch import follow
from proofloop_trainer.memory import enough_for
from proofloop_trainer.ranks import Order

IN_32_BITS = "in 32 bits unless started by `accelerate launch`"


@pytest.mark.parametrize(
    ("gpus", "said"),
    [
        ([], "no GPU: training uses the CPU"),
        ([("H100", 79 * GIB)], f"H100 (79 GiB): training uses the GPU, {IN_32_BITS}"),
        (
            [("H100", 79 * GIB)] * 2,
            f"H100 (79 GiB), H100 (79 GiB): training uses the first GPU, {IN_32_BITS}",
        ),
    ],
)
def test_every_gpu_is_named_with_its_memory_and_what_training_uses(
    gpus: list[tuple[str, int]], said: str
):
    assert in_words("2.9", gpus) == f"2.9 sees {said}"


def test_more_processes_than_gpus_are_refused_with_the_ways_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"2 processes .* 1 GPU") as refused:
        ranks.join()
    assert (
        "start 1 on this machine" in refused.value.hint
        and "CUDA_VISIBLE_DEVICES=" in refused.value.hint
    )


def test_a_process_that_alone_cannot_open_a_model_ends(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    said = {
        "model": str(tmp_path / "not-here"),
        "reference": str(tmp_path / "not-here"),
        "settings": {},
    }
    orders: Iterator[Order] = iter(
        [Order(call="open", learner="a", arguments=said), Order(call="end")]
    )
    monkeypatch.setattr(ranks, "receive", lambda: next(orders))
    with pytest.raises(ConfigError, match=r"no model in .*not-here"):
        follow()


@pytest.mark.parametrize(
    "error", [ZeroDivisionError(), StoreError("away"), Retry("the trainer is stopping")]
)
def test_nothing_is_told_to_processes_that_wait_in_a_step_which_the_first_broke_off(
    error: Exception, monkeypatch: pytest.MonkeyPatch
):
    """Only the first process has the store and hears of a stop."""
    monkeypatch.setattr(ranks, "_orders", object())
    monkeypatch.setattr(ranks, "_is_broken", False)
    monkeypatch.setattr(ranks, "rank", lambda: 0)
    with pytest.raises(type(error)), enough_for("a step"):
        raise error
    with pytest.raises(ProofloopError, match="left the other processes waiting"):
        ranks.broadcast(Order(call="step"))


def test_what_all_processes_refuse_alike_parts_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ranks, "_orders", object())
    with pytest.raises(Reject), enough_for("a step"):
        raise Reject("a loss that is not finite")
    assert not ranks._is_broken
