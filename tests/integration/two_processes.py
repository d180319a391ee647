"""What `test_fsdp` starts: steps on tiny models, in one process or as one of several. Prints what
it saw as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from proofloop.config.run_file.training import Lora
from proofloop.errors import ProofloopError
from proofloop_trainer import ranks
from proofloop_trainer.fine_tuning.supervised import Schedule, answer_to_learn, fine_tune
from proofloop_trainer.grpo.learner import GrpoLearner
from proofloop_trainer.grpo.settings import GrpoSettings
from proofloop_trainer.launch import follow
from proofloop_trainer.ranks import Order
from tests.unit.trainer.grpo_examples import (
    batch,
    changed,
    overflowing,
    ragged_samples,
    sample,
    save_tiny_model,
)

# One update per step: AdamW amplifies rounding errors in gradients near 0, which would look like an
# error of a step.
SETTINGS = GrpoSettings(
    epochs=1, minibatch_sequences=32, tokens_per_pass=40, kl_coefficient=0.1, learning_rate=1e-3
)


def train(out: Path, models: list[Path]) -> dict[str, Any]:
    """Two steps of each model and of an adapter, side by side; the second again from the checkpoint
    of the first; supervised steps.
    """
    learners = {model.name: GrpoLearner(model, SETTINGS) for model in models}
    learners["adapter"] = GrpoLearner(models[0], SETTINGS, lora=Lora(rank=4))
    seen: dict[str, list[float]] = {}
    for (name, learner), model in zip(learners.items(), [*models, models[0]], strict=True):
        reports = []
        for step in range(2):
            reports.append(learner.step(batch(*ragged_samples(20, seed=step))))
            learner.save(out / f"{name}-{step}")
        restored = GrpoLearner.restore(out / f"{name}-0", model)
        reports.append(restored.step(batch(*ragged_samples(20, seed=1))))
        restored.save(out / f"{name}-again")
        restored.close()
        seen[name] = [report.loss for report in reports]
        seen[f"{name} gradients"] = [report.grad_norm for report in reports]
        seen[f"{name} kl"] = [report.kl for report in reports]
        seen[f"{name} held"] = [held(learner)]
        seen[f"{name} after an error"] = [after_an_error(out / f"{name}-0", model)]
    first = learners[models[0].name]
    silent = first.step(batch(sample(0.5), sample(0.5)))
    # Fewer answers than processes.
    single = first.step(batch(sample(0.0), sample(1.0, completion=())))
    seen["silent, single"] = [silent.updates, silent.loss, single.updates, single.loss]
    answers = [answer_to_learn(one.tokens) for one in ragged_samples(9)]
    how = Schedule(batch=4, learning_rate=1e-3, tokens_per_pass=64)
    fine_tune(models[0], out / "tuned", answers, how, seed=0)
    return seen | {"device": str(ranks.device())}


def train_in_16_bits(out: Path, model: Path) -> dict[str, object]:
    """A step in bf16 with offloaded weights, again from its checkpoint, and supervised steps.

    What is seen are the log-probabilities of this process's answer, the shorter one, and its part
    of the gradients.
    """
    gradients: list[torch.Tensor] = []
    logprobs: list[torch.Tensor] = []
    unclipped = {"max_grad_norm": 1e9, "clip_low": 0.99, "clip_high": 10.0}
    learner = GrpoLearner(model, changed(SETTINGS, **unclipped))
    learner.optimizer.register_step_pre_hook(
        lambda optimizer, *_: gradients.extend(
            each.grad.to_local() for each in optimizer.param_groups[0]["params"]
        )
    )
    learner.model.register_forward_hook(lambda *call: logprobs.append(call[-1].log_probs.detach()))
    computed: list[object] = []
    learner.model.model.layers[0].mlp.register_forward_pre_hook(lambda *call: computed.append(call))
    samples = sample(0.0, completion=(8, 9)), sample(1.0, completion=(10, 11, 12))
    learner.step(batch(*samples))
    recomputes = len(computed) == 2 * len(logprobs)
    logprobs_BC = logprobs[-1][:, -2:]
    learner.save(out / "16-bits")
    gradient = torch.cat([each.flatten() for each in gradients])
    again, through = (
        one.step(batch(*samples)).loss
        for one in (GrpoLearner.restore(out / "16-bits", model), learner)
    )
    answers = [answer_to_learn(one.tokens) for one in samples]
    fine_tune(model, out / "tuned", answers, Schedule(batch=2), seed=0)
    base = save_tiny_model(out / "base", dtype=torch.bfloat16)
    with GrpoLearner(base, SETTINGS, lora=Lora(rank=4)) as adapted:
        adapter_gradient = adapted.step(batch(*samples)).grad_norm
    return {
        "adapter's gradient": adapter_gradient,
        "offloads": os.environ["FSDP_OFFLOAD_PARAMS"],
        "recomputes": recomputes,
        "logprobs": logprobs_BC[0].tolist(),
        "types": [
            str(logprobs_BC.dtype),
            str(gradient.dtype),
            *{str(p.dtype) for p in learner.model.parameters()},
        ],
        "gradients beyond 16 bits": (gradient != gradient.bfloat16()).float().mean().item(),
        "losses": [through, again],
    }


def after_an_error(checkpoint: Path, model: Path) -> float:
    """The loss of the step from the checkpoint, after an attempt at another that failed in every
    process.
    """
    try:
        with GrpoLearner.restore(checkpoint, model) as failing:
            failing.step(batch(*ragged_samples(4), overflowing("0")))
    except ProofloopError:
        with GrpoLearner.restore(checkpoint, model) as again:
            return again.step(batch(*ragged_samples(20, seed=1))).loss
    raise AssertionError("a loss that is not finite was learnt from")


def held(learner: GrpoLearner) -> float:
    """The share of the weights that this process has."""
    weights = list(learner.model.parameters())
    mine = sum(
        each.to_local().numel() if isinstance(each, DTensor) else each.numel() for each in weights
    )
    return mine / sum(each.numel() for each in weights)


def main() -> None:
    torch.set_num_threads(1)
    ranks.join()
    if ranks.rank():
        follow()
    else:
        out, *models = map(Path, sys.argv[1:])
        is_16_bits = os.environ["ACCELERATE_MIXED_PRECISION"] == "bf16"
        print(json.dumps(train_in_16_bits(out, *models) if is_16_bits else train(out, models)))
        ranks.broadcast(Order(call="end"))
    carrying = gloo_threads()
    ranks.leave()
    assert gloo_threads() < carrying, (
        "the threads of the orders outlive their group, and may outlive the interpreter"
    )


def gloo_threads() -> int:
    names = (task.joinpath("comm").read_text() for task in Path("/proc/self/task").iterdir())
    return sum(name.startswith("pt_gloo") for name in names)


if __name__ == "__main__":
    main()
