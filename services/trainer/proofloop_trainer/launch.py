"""`proofloop` in several processes that train one model together by FSDP2.

    accelerate launch --config_file FILE -m proofloop_trainer.launch iterate CURRICULUM.toml

The first process runs the command; the others only join its training steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from proofloop.cli import main as command_line
from proofloop.config.run_file.training import Lora
from proofloop.errors import ProofloopError
from proofloop.schema.records import Tokens, TrainingBatch
from proofloop_trainer import ranks
from proofloop_trainer.fine_tuning.supervised import Schedule, answer_to_learn, fine_tune
from proofloop_trainer.grpo.learner import GrpoLearner
from proofloop_trainer.grpo.settings import GrpoSettings
from proofloop_trainer.ranks import Order

log = structlog.get_logger()


def main() -> None:
    """Lead if this process has rank 0, else follow."""
    ranks.join()
    if ranks.rank() > 0:
        follow()
    else:
        lead()
    ranks.leave()


def lead() -> None:
    """Run the command line. If it fails, the launcher ends the other processes, which may be
    waiting in a step.
    """
    try:
        command_line()
    except SystemExit as end:
        if end.code:
            raise
    ranks.broadcast(Order(call="end"))


def follow() -> None:
    """Repeat the first process's model calls until it ends."""
    learners: dict[str, GrpoLearner] = {}
    while (order := ranks.receive()).call != "end":
        try:
            repeat(order, learners)
        except ProofloopError as error:
            if order.call != "step":
                raise  # only this process failed: the launcher ends the others, which would wait
            # All processes refuse a bad batch alike; the first one raises the error to the user.
            log.warning("step_refused", rank=ranks.rank(), error=str(error))


def repeat(order: Order, learners: dict[str, GrpoLearner]) -> None:
    """Make the call that an order names."""
    given = order.arguments
    learner = learners.get(order.learner)
    if order.call == "open":
        settings = GrpoSettings.model_validate(given["settings"])
        learners[order.learner] = GrpoLearner(
            Path(given["model"]), settings, Path(given["reference"]), _lora(given)
        )
    elif order.call == "fine_tune":
        rows = [
            answer_to_learn(Tokens(prompt_ids=prompt, completion_ids=completion, logprobs=()))
            for prompt, completion in given["answers"]
        ]
        schedule = Schedule.model_validate(given["schedule"])
        places = Path(given["start"]), Path(given["out"])
        fine_tune(*places, rows, schedule, given["seed"], _lora(given))
    elif learner is None:
        raise RuntimeError(
            f"order {order.call!r} for learner {order.learner}, which was never opened"
        )
    elif order.call == "close":
        learners.pop(order.learner).close()
    elif order.call == "resume":
        learner.resume(Path(given["folder"]))
    elif order.call == "step":
        learner.step(TrainingBatch.model_validate(given["batch"]))
    else:
        learner.whole()


def _lora(given: Mapping[str, Any]) -> Lora | None:
    return Lora.model_validate(fields) if (fields := given.get("lora")) else None


if __name__ == "__main__":
    main()
