"""Checks that a curriculum on services survives the death of every service, on real servers.

A short curriculum of nano runs twice on RabbitMQ, S3 and Triton with the same seed: once in peace,
and once while one process after another is killed with SIGKILL and started again, in turn: the five
services, the controller and Triton. A kill follows each run and each training step that begins or
ends, so that every stage loses some. The last line is JSON:

stages, planned        finished stages of the disturbed run, and all of them
kills                  by service; `least_kills`: of the service that was killed least
trained_twice          cases in two batches of a run
batches, same_cases    batches of the peaceful run, and those of them with the same cases and
                       answers' keys in the disturbed run
same_answers           those with the same tokens too: rounding may differ with the calls that share
                       a batch in the engine
dead_letters           messages that were given up
calm_s, seconds        durations of both runs

`--keep DIR` keeps the logs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.integration.fleet import Fleet, installation
from tests.integration.processes import folder
from tests.integration.servers import S3, Broker, own_servers
from tests.integration.triton_server import Triton, own_triton

from proofloop.api.files import read_curriculum
from proofloop.curriculum.status import manifests, runs_of
from proofloop.schema import keys
from proofloop.schema.records import MODEL_ROLES, TrainingBatch
from proofloop.store import Store, get_record

SERVICES = ("generator", "verifier", "meta_verifier", "labeler", "trainer")
VICTIMS = (*SERVICES, "controller", "triton")
PAUSE_S = 5.0
"""The shortest time between two kills: a service needs it to start."""

LIMIT_S = 3600.0
CONCURRENCY = {"trainer": "1"}

NAME = "killed"
CURRICULUM = """
name = "killed"
iterations = 1
measured = 0
[engine]
kind = "triton"
settings = {{ endpoints = ["{endpoint}"], server_settings = "nano-cpu.yaml" }}
[sampling]
generator = {{ max_tokens = 96 }}
verifier = {{ max_tokens = 96 }}
meta_verifier = {{ max_tokens = 96 }}
[cold_start]
steps = 4
batch = 16
[data]
problems = 14
proofs = 12
analyses = 9
temperatures = [1.0]
analysis_temperatures = [1.0]
validation = 6
[verifier]
steps = 3
groups = 3
samples = 4
[meta_verifier]
steps = 2
groups = 2
samples = 4
[enhanced]
steps = 2
groups = 3
samples = 4
meta_groups = 1
[generator]
steps = 2
groups = 2
samples = 4
critiques = 2
metas = 1
[labels]
problems = 3
proofs_per_problem = 1
rule = {{ n = 2, m = 1, k = 1 }}
[consolidate]
prompts = 4
samples = 2
keep = 0.0
[watch]
no_signal = 1.0
format = 0.0
same_score = 1.0
"""


@dataclass(frozen=True)
class Result:
    stages: int
    planned: int
    kills: dict[str, int]
    least_kills: int
    trained_twice: int
    batches: int
    same_cases: int
    same_answers: int
    dead_letters: int
    calm_s: float
    seconds: float


@dataclass(frozen=True)
class Ended:
    """What a run of the curriculum left."""

    batches: dict[str, TrainingBatch]
    stages: int
    planned: int
    dead_letters: int
    kills: Counter[str]
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", type=Path, help="keep all logs in this folder")
    asked = parser.parse_args()
    with ExitStack() as stack:
        place = asked.keep or stack.enter_context(folder("proofloop-curriculum-"))
        broker, s3 = stack.enter_context(own_servers())
        calm = run(broker, s3, place / "calm", has_kills=False)
        tell(f"in peace: {calm.stages} of {calm.planned} stages in {calm.seconds:.0f} s")
        killed = run(broker, s3, place / "killed", has_kills=True)
    print(json.dumps(asdict(compared(calm, killed))))


def run(broker: Broker, s3: S3, place: Path, *, has_kills: bool) -> Ended:
    """Run the curriculum in an installation of its own; its logs go to `place`."""
    place.mkdir(parents=True, exist_ok=True)
    with installation(broker, s3, place) as (fleet, store, letters):
        fleet.environment |= {"PROOFLOOP_CACHE": str(place / "cache"), "OMP_NUM_THREADS": "1"}
        with triton_on(fleet) as triton:
            file = place / "killed.toml"
            file.write_text(CURRICULUM.format(endpoint=triton.endpoint))
            for service in SERVICES:
                start(fleet, service)
            began, drive = time.monotonic(), Driving(fleet, store, triton, file)
            drive.to_the_end(VICTIMS if has_kills else ())
            seconds = time.monotonic() - began
            dead = sum(1 for _ in letters.letters())
        spec = read_curriculum(file)
        return Ended(
            batches=dict(batches_of(store)),
            stages=len(manifests(store, spec)),
            planned=len(spec.stages),
            dead_letters=dead,
            kills=drive.kills,
            seconds=round(seconds, 1),
        )


@contextmanager
def triton_on(fleet: Fleet) -> Iterator[Triton]:
    """A Triton that reads the versions in the fleet's bucket."""
    with own_triton() as triton:
        assert triton.kill is not None and triton.start is not None
        ours = {name for name in fleet.environment if name.startswith("PROOFLOOP_")}
        triton.environment.update({name: fleet.environment[name] for name in ours})
        triton.kill()
        triton.start()
        yield triton


def start(fleet: Fleet, service: str) -> None:
    fleet.start(service, 0, "--concurrency", CONCURRENCY.get(service, "16"))


class Driving:
    """Keeps the controller running until the curriculum ends, and kills one process after
    another.
    """

    def __init__(self, fleet: Fleet, store: Store, triton: Triton, file: Path) -> None:
        self._fleet, self._store, self._triton = fleet, store, triton
        self._command = ("iterate", str(file))
        self._controller = fleet.call(*self._command)
        self.kills = Counter[str]()

    def to_the_end(self, victims: Sequence[str]) -> None:
        began, turns, seen = time.monotonic(), cycle(victims), 0
        while (code := self._controller.poll()) != 0:
            if time.monotonic() - began > LIMIT_S:
                self._controller.kill()
                return
            if code is not None:  # it was killed, or its predecessor still holds the lease
                self._controller = self._fleet.call(*self._command)
            elif victims and (now := progress(self._store)) > seen:
                seen = now
                self._kill(next(turns))
            time.sleep(PAUSE_S if victims else 1.0)

    def _kill(self, victim: str) -> None:
        if victim == "controller":
            self._controller.kill()
            self._controller.wait()
        elif victim == "triton":
            assert self._triton.kill is not None and self._triton.start is not None
            self._triton.kill()
            self._triton.start()
        else:
            self._fleet.kill(victim, 0)
            start(self._fleet, victim)
        self.kills[victim] += 1
        tell(f"killed: {', '.join(f'{name} {count}' for name, count in self.kills.items())}")


def progress(store: Store) -> int:
    """How many runs, batches and steps have begun or ended."""
    found = runs_of(store, NAME)
    steps = sum(1 for name in found for _ in store.list(keys.all_steps(name)))
    return len(found) + len(dict(batches_of(store))) + steps


def batches_of(store: Store) -> Iterator[tuple[str, TrainingBatch]]:
    for name in runs_of(store, NAME):
        for role in MODEL_ROLES:
            for key in store.list(keys.batches(name, role)):
                yield key, get_record(store, key, TrainingBatch)


def compared(calm: Ended, killed: Ended) -> Result:
    """The disturbed run beside the peaceful one."""
    pairs = [(batch, killed.batches.get(key)) for key, batch in calm.batches.items()]
    kills = {victim: killed.kills[victim] for victim in VICTIMS}
    return Result(
        stages=killed.stages,
        planned=killed.planned,
        kills=kills,
        least_kills=min(kills.values()),
        trained_twice=trained_twice(killed.batches),
        batches=len(calm.batches),
        same_cases=sum(after is not None and cases(one) == cases(after) for one, after in pairs),
        same_answers=sum(
            after is not None and tokens(one) == tokens(after) for one, after in pairs
        ),
        dead_letters=killed.dead_letters,
        calm_s=calm.seconds,
        seconds=killed.seconds,
    )


def cases(batch: TrainingBatch) -> tuple[object, ...]:
    return batch.problems, tuple(sample.key for sample in batch.samples)


def tokens(batch: TrainingBatch) -> tuple[object, ...]:
    return tuple(sample.tokens.completion_ids for sample in batch.samples)


def trained_twice(batches: dict[str, TrainingBatch]) -> int:
    """The cases that are in two batches of a run's role."""
    taken = Counter(
        (batch.run_id, batch.role, case) for batch in batches.values() for case in batch.problems
    )
    return sum(count - 1 for count in taken.values())


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
