"""`proofloop` in several processes that train one model together, by FSDP2.

    accelerate launch --config_file FILE -m proofloop_trainer.launch iterate CURRICULUM.toml

The first process is the command; the others take part in each of its training steps, and know nothing else.
"""

from __future__ import annotations

from pathlib import Path

import structlog

from proofloop.cli import main as command_line
from proofloop.curriculum import Consolidate
from proofloop.errors import ProofloopError
from proofloop.records import Tokens, TrainingBatch
from proofloop_trainer import ranks
from proofloop_trainer.grpo import GrpoLearner
from proofloop_trainer.grpo_settings import GrpoSettings
from proofloop_trainer.ranks import Order
from proofloop_trainer.supervised import fine_tune

log = structlog.get_logger()


def main() -> None:
    """Lead or follow, by this process's rank."""
    ranks.join()
    if ranks.rank() > 0:
        follow()
    else:
        lead()
    ranks.leave()


def lead() -> None:
    """The command line. If it fails, the others may wait in the midst of a step: the launcher ends them."""
    try:
        command_line()
    except SystemExit as end:
        if end.code:
            raise
    ranks.tell(Order(call="end"))


def follow() -> None:
    """Do what the first process does to a model, until it has ended."""
    learners: dict[int, GrpoLearner] = {}
    while (order := ranks.hear()).call != "end":
        for number in order.closed:
            learners.pop(number, None)
        try:
            repeat(order, learners)
        except ProofloopError as error:
            if order.call != "step":
                raise  # of this process alone: it ends, and the launcher ends those who would wait for it
            # A step is refused in all of them alike, and somebody reads it where the first one raises.
            log.warning("step_refused", rank=ranks.rank(), error=str(error))


def repeat(order: Order, learners: dict[int, GrpoLearner]) -> None:
    """Make the call of an order."""
    said, learner = order.arguments, learners.get(order.learner)
    if order.call == "open":
        settings = GrpoSettings.model_validate(said["settings"])
        learners[order.learner] = GrpoLearner(Path(said["model"]), settings, Path(said["reference"]))
    elif order.call == "fine_tune":
        answers = [Tokens.model_validate(answer) for answer in said["answers"]]
        fine_tune(Path(said["start"]), Path(said["out"]), answers, Consolidate(**said["how"]), said["seed"])
    elif learner is None:
        raise RuntimeError(f"order {order.call!r} for learner {order.learner}, which was never opened")
    elif order.call == "resume":
        learner.resume(Path(said["folder"]))
    elif order.call == "step":
        learner.step(TrainingBatch.model_validate(said["batch"]))
    else:
        learner.whole()


if __name__ == "__main__":
    main()
