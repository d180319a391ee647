"""Nothing is lost: services on a real broker and a real store, while workers are killed and both servers go away.

Every 2 seconds one worker of a random role is killed with SIGKILL and started again, the broker is killed once, the
store is away for 20 seconds once. The engine is simulated and keeps a ledger of its calls, from which those that were
paid twice are counted. The last line is JSON: `lost`, `duplicates` and `stuck` must be 0, and `calls_paid_again` at
most `calls_running_in_killed_workers` and `answers_unstored_in_killed_workers`: an answer that a worker takes with
it, while the store is away for example, is paid again too. `--small`: 60 proofs x 4 critiques, shorter absences.
`--engine triton`: 32 proofs x 4 critiques of nano-base on a real Triton, which is killed once too; no ledger there.

The servers are those of the tests, started here. `--keep DIR` keeps the logs and the ledger.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

from proofloop import keys
from proofloop.records import Label
from proofloop.store import Store, get_record
from proofloop.walk import WALK_ROLES

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.integration.fleet import Fleet, installation
from tests.integration.processes import folder
from tests.integration.servers import S3, Broker, own_s3, running_rabbitmq
from tests.integration.triton_server import Triton, own_triton

REPLICAS, OPTIONS = 2, ("--concurrency", "16")
PROOFS_PER_PROBLEM = 4

RUN = """
name = "chaos"
prompts = "{prompts}"
[problems]
domain = "nano"
count = {problems}
proofs_per_problem = {per_problem}
{engine}
[flow]
max_waiting_proofs = {waiting}
[labeling]
n = {critiques}
m = 1
k = 2
"""

SIMULATED = """
[engine]
kind = "simulated"
settings = {{ latency_s = {latency_s}, ledger = "{ledger}" }}
"""

TRITON = """
[engine]
kind = "triton"
settings = {{ endpoints = ["{endpoint}"] }}
[models]
generator = "nano-base"
verifier = "nano-base"
meta_verifier = "nano-base"
"""


@dataclass(frozen=True)
class Plan:
    """What is walked and what is done to it. Times in seconds; a server goes when that share is done."""

    proofs: int = 2000
    critiques: int = 8
    waiting: int = 48
    latency_s: float = 0.2
    kill_every_s: float = 2.0
    broker_share: float = 0.3
    store_share: float = 0.6
    triton_share: float = 0.75
    store_away_s: float = 20.0
    limit_s: float = 3600.0


SMALL = Plan(proofs=60, critiques=4, latency_s=0.1, kill_every_s=2.0, store_away_s=5.0, limit_s=150.0)
ON_TRITON = Plan(proofs=32, critiques=4, waiting=8, kill_every_s=2.5, store_away_s=5.0, limit_s=600.0)


@dataclass(frozen=True)
class Paid:
    """What the ledger says; a call is paid again when its question was asked before."""

    calls: int
    calls_paid_again: int
    calls_running_in_killed_workers: int
    answers_unstored_in_killed_workers: int


@dataclass(frozen=True)
class Result:
    """What came of it. `kills` counts workers; `paid` is known of the simulated engine only."""

    proofs: int
    labeled: int
    lost: int
    duplicates: int
    stuck: int
    kills: int
    paid: Paid | None
    broker_restarts: int
    store_absences: int
    triton_restarts: int
    seconds: float

    def figures(self) -> dict[str, float]:
        """All of it by name."""
        figures = asdict(self)
        return figures | (figures.pop("paid") or {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="about a minute")
    parser.add_argument("--engine", choices=("simulated", "triton"), default="simulated")
    parser.add_argument("--proofs", type=int, help="another number of proofs")
    parser.add_argument("--keep", type=Path, help="keep logs and ledger in this folder")
    asked = parser.parse_args()
    plan = ON_TRITON if asked.engine == "triton" else SMALL if asked.small else Plan()
    with ExitStack() as stack:
        place = asked.keep or stack.enter_context(folder("proofloop-chaos-"))
        broker = stack.enter_context(running_rabbitmq(stack.enter_context(folder("proofloop-rabbitmq-"))))
        s3 = stack.enter_context(own_s3(stack.enter_context(folder("proofloop-ceph-"))))
        triton = stack.enter_context(own_triton()) if asked.engine == "triton" else None
        plan = replace(plan, proofs=asked.proofs or plan.proofs)
        print(json.dumps(chaos(plan, broker, s3, place, triton).figures()))


def chaos(plan: Plan, broker: Broker, s3: S3, place: Path, triton: Triton | None = None) -> Result:
    """Walk by the plan, on Triton if there is one; `place` gets the logs and the ledger."""
    place.mkdir(parents=True, exist_ok=True)
    run = place / "chaos.toml"
    fields = {"problems": plan.proofs // PROOFS_PER_PROBLEM, "per_problem": PROOFS_PER_PROBLEM}
    fields |= {"critiques": plan.critiques, "waiting": plan.waiting}
    if triton:
        engine, prompts = TRITON.format(endpoint=triton.endpoint), "nano"
    else:
        engine, prompts = SIMULATED.format(latency_s=plan.latency_s, ledger=place / "ledger"), "math"
    run.write_text(RUN.format(**fields, engine=engine, prompts=prompts))
    with installation(broker, s3, place) as (fleet, store, letters):
        for role, replica in product(WALK_ROLES, range(REPLICAS)):
            fleet.start(role, replica, *OPTIONS)
        began = time.monotonic()
        posing = fleet.call("run", str(run))
        try:
            broken = break_things(plan, broker, s3, fleet, store, posing, triton)
        finally:
            posing.kill()
            posing.wait()
        calm = wait_for(lambda: not any(depth.ready + depth.later for depth in letters.depths()), 30)
        seconds = time.monotonic() - began
        stuck = sum(1 for _ in letters.letters()) + (0 if calm else sum(d.ready + d.later for d in letters.depths()))
        labels = [get_record(store, key, Label) for key in store.list(keys.labels("chaos"))]
        proofs = len({label.proof_id for label in labels})
        return Result(
            proofs=plan.proofs,
            labeled=proofs,
            lost=plan.proofs - proofs,
            duplicates=len(labels) - proofs,
            stuck=stuck,
            kills=len(fleet.killed),
            paid=None if triton else Paid(*count_calls(place / "ledger", fleet.killed)),
            broker_restarts=broken.count("broker"),
            store_absences=broken.count("store"),
            triton_restarts=broken.count("triton"),
            seconds=round(seconds, 1),
        )


def break_things(
    plan: Plan,
    broker: Broker,
    s3: S3,
    fleet: Fleet,
    store: Store,
    posing: subprocess.Popen[bytes],
    triton: Triton | None = None,
) -> list[str]:
    """Kill by the plan until the run is over; which servers were taken away."""
    dice, began, broken = random.Random(11), time.monotonic(), list[str]()
    absences: list[threading.Thread] = []
    outages: list[tuple[str, float, Broker | S3 | Triton, float]]
    outages = [("broker", plan.broker_share, broker, 0.0), ("store", plan.store_share, s3, plan.store_away_s)]
    outages += [("triton", plan.triton_share, triton, 0.0)] if triton else []
    labeled = 0
    while posing.poll() is None and time.monotonic() - began < plan.limit_s:
        time.sleep(plan.kill_every_s)
        role, replica = dice.choice(WALK_ROLES), dice.randrange(REPLICAS)
        fleet.kill(role, replica)
        fleet.start(role, replica, *OPTIONS)
        if not any(absence.is_alive() for absence in absences):
            labeled = sum(1 for _ in store.list(keys.labels("chaos")))
            if outages and labeled > outages[0][1] * plan.proofs:
                name, _, server, away_s = outages.pop(0)
                broken.append(name)
                absences.append(go_away(server, away_s))
        tell(labeled, plan.proofs, len(fleet.killed), broken, time.monotonic() - began)
    for absence in absences:
        absence.join()
    return broken


def go_away(server: Broker | S3 | Triton, seconds: float) -> threading.Thread:
    """Kill the server and start it again after so long, beside everything else."""
    if server.kill is None or server.start is None:
        sys.exit("error: this server is not ours to kill; unset PROOFLOOP_TEST_BROKER and PROOFLOOP_TEST_S3")
    kill, start = server.kill, server.start

    def leave() -> None:
        kill()
        time.sleep(seconds)
        start()

    absence = threading.Thread(target=leave)
    absence.start()
    return absence


def tell(labeled: int, proofs: int, kills: int, broken: list[str], seconds: float) -> None:
    left = f"{seconds * (proofs - labeled) / labeled:.0f} s left" if labeled else "time left unknown"
    gone = f", taken away: {' and '.join(broken)}" if broken else ""
    print(f"{seconds:.0f} s: {labeled} of {proofs} proofs labelled, {kills} kills{gone}; {left}", file=sys.stderr)


def count_calls(ledger: Path, killed: list[int]) -> tuple[int, int, int, int]:
    """Calls in all; those that asked what was asked before; those running in workers when these were killed.

    The last: answers that a killed worker had, of questions that another worker asked again.
    """
    asked: dict[str, list[int]] = defaultdict(list)
    running, answered = 0, set[tuple[str, int]]()
    for file in ledger.iterdir():
        process = int(file.name.partition("-")[0])
        lines = [line.split() for line in file.read_text().splitlines()]
        ended = {request for what, request in lines if what == "ended"}
        for request in (request for what, request in lines if what == "began"):
            question = request.rpartition(":")[0]
            asked[question].append(process)
            if process in killed and request in ended:
                answered.add((question, process))
            running += process in killed and request not in ended
    total = sum(map(len, asked.values()))
    unstored = sum(len(asked[question]) > 1 for question, _ in answered)
    return total, total - len(asked), running, unstored


def wait_for(is_so: Callable[[], bool], limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


if __name__ == "__main__":
    main()
