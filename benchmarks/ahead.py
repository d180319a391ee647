"""On-policy beside asynchronous training: what `ahead` brings and costs, on nano in one process.

The verifier of nano-base trains on given proofs. Its answers are real, but each comes late, by the
latency of a real model's answer: 4 s in the median, some three times as long. With `ahead` = 1 a
step waits for the slowest answer and then for the trainer; larger values fill the 64 slots
meanwhile. The last line is JSON, by `ahead`:

steps_per_hour     without the first step, which fills the slots
first, last        mean reward of the first and of the last quarter of the steps
steps_late         mean age of the trained answers in steps

`--small`: one step of each, less than a minute.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean

from proofloop.config.run_file import RunSpec
from proofloop.engine.base import Call, Engine, FutureCall, Generation, GenerationRequest, prepare
from proofloop.method.domains.nano import (
    NanoDomain,
    find_defects,
    parse_question,
    render_proof,
    score_of,
)
from proofloop.pipeline.embedded import EmbeddedPipeline
from proofloop.runs.create import create_run
from proofloop.runs.given import keep_portion
from proofloop.runs.progress import RunProgress
from proofloop.schema import keys
from proofloop.schema.given import GivenCase
from proofloop.schema.records import MODEL_ROLES, Given, TrainingBatch
from proofloop.store import LocalStore, Store, get_record
from proofloop.worker.engine_pool import Engines
from proofloop.worker.logs import configure_logging
from proofloop_trainer.nano.flaws import write_proof

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.integration.processes import folder

SLOTS = 64


@dataclass(frozen=True)
class Plan:
    """`groups`: proofs in a step; `samples`: critiques of each."""

    ahead: tuple[float, ...] = (1.0, 2.0, 3.0)
    steps: int = 16
    groups: int = 8
    samples: int = 8
    median_s: float = 4.0
    sigma: float = 0.5


SMALL = Plan(ahead=(1.0, 2.0), steps=2, groups=2, samples=4, median_s=1.0)


@dataclass(frozen=True)
class Result:
    steps_per_hour: float
    first: float
    last: float
    steps_late: float


class LateEngine:
    """Gives the answers of another engine later, by a log-normal latency of each call."""

    def __init__(self, engine: Engine, plan: Plan) -> None:
        self._engine, self._plan = engine, plan

    def submit(self, request: GenerationRequest) -> Call:
        latency = random.Random(request.seed).lognormvariate(
            math.log(self._plan.median_s), self._plan.sigma
        )
        return LateCall(self._engine.submit(request), latency)

    def prepare(self, model: str) -> None:
        prepare(self._engine, model)

    def close(self) -> None:
        self._engine.close()


class LateCall(FutureCall):
    def __init__(self, call: Call, latency_s: float) -> None:
        super().__init__()
        self._call, self._began_s, self._latency_s = call, time.monotonic(), latency_s
        call.when_done(self._wait)

    def cancel(self) -> None:
        self._call.cancel()

    def _wait(self) -> None:
        left_s = self._began_s + self._latency_s - time.monotonic()
        timer = threading.Timer(max(0.0, left_s), self._answer)
        timer.daemon = True
        timer.start()

    def _answer(self) -> None:
        try:
            found: Generation = self._call.result()
        except Exception as error:
            self.future.set_exception(error)
        else:
            self.future.set_result(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="less than a minute")
    plan = SMALL if parser.parse_args().small else Plan()
    configure_logging("warning")
    found: dict[float, Result] = {}
    for ahead in plan.ahead:
        with folder("proofloop-ahead-") as place:
            found[ahead] = train(plan, ahead, place)
        print(f"ahead = {ahead:g}: {found[ahead]}", file=sys.stderr)
    print(json.dumps({f"{ahead:g}": asdict(result) for ahead, result in found.items()}))


def train(plan: Plan, ahead: float, place: Path) -> Result:
    """Take all steps of a run in a store of its own."""
    store, spec = LocalStore(place / "store"), run_spec(plan, ahead)
    keep_portion(store, spec.name, 0, islice(graded_proofs(), plan.steps * plan.groups))
    create_run(store, spec, resume=False)
    engines, ended_s = Engines(store, place / "cache"), list[float]()
    engine = LateEngine(engines.of(spec, "verifier"), plan)

    def look(progress: RunProgress) -> None:
        if progress.steps.get("verifier", 0) > len(ended_s):
            ended_s.append(time.monotonic())

    try:
        with EmbeddedPipeline(store, engines, spec, engine=engine) as pipeline:
            pipeline.run(look)
    finally:
        engines.close()
    return result(store, spec, plan, ended_s)


def run_spec(plan: Plan, ahead: float) -> RunSpec:
    role = {
        "steps": plan.steps,
        "groups": plan.groups,
        "train_on": "all",
        "settings": {"minibatch_sequences": 64},
    }
    fields = {
        "name": "ahead",
        "prompts": "nano",
        "reading": "strict",
        "problems": {"material": True, "proofs_per_problem": 1},
        "engine": {"kind": "local", "settings": {"max_batch": SLOTS}},
        "models": dict.fromkeys(MODEL_ROLES, "nano-base"),
        "sampling": {"verifier": {"max_tokens": 96}},
        "flow": {"max_waiting_proofs": 256, "verifier": SLOTS},
        "labeling": {
            "n": plan.samples,
            "m": 0,
            "k": 1,
            "stop_early": False,
            "retry_unreadable": False,
        },
        "reward": {"meta": False},
        "training": {"problems": plan.groups, "ahead": ahead, "verifier": role},
    }
    return RunSpec.model_validate(fields)


def graded_proofs() -> Iterator[GivenCase]:
    """Nano proofs with the checker's grade, half of them flawed."""
    rng = random.Random("ahead")
    for number in range(2**40):
        question = NanoDomain().pose(number, split="train", seed=2).question
        chain = parse_question(question)
        if lines := write_proof(rng, chain, flawed_share=0.5):
            grade = Given(score=score_of(find_defects(chain, lines)), by="checker")
            yield GivenCase(question=question, solution=render_proof(lines), given=grade)


def result(store: Store, spec: RunSpec, plan: Plan, ended_s: list[float]) -> Result:
    listed = store.list(keys.batches(spec.name, "verifier"))
    batches = [get_record(store, key, TrainingBatch) for key in listed]
    rewards, quarter = [batch.mean_reward for batch in batches], max(1, len(batches) // 4)
    return Result(
        steps_per_hour=round(3600 * (len(ended_s) - 1) / (ended_s[-1] - ended_s[0]), 1),
        first=round(fmean(rewards[:quarter]), 3),
        last=round(fmean(rewards[-quarter:]), 3),
        steps_late=round(fmean(age for batch in batches for age in ages(batch)), 2),
    )


def ages(batch: TrainingBatch) -> Iterator[int]:
    """How many steps older than the newest version each answer is."""
    for sample in batch.samples:
        version = keys.parse_numbered(sample.model_version)
        yield batch.step - (version.number if version else 0)


if __name__ == "__main__":
    main()
