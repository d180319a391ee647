"""Checks that nothing is lost when workers are killed and the broker and store fail, on a real
broker and store.

Every 2 seconds, one worker of a random role is killed with SIGKILL and started again. Once each,
the broker is killed, the broker closes all its connections, and the store is unavailable for 20
seconds. The engine is simulated and keeps a log of its calls. The last line is JSON. `lost`,
`duplicates`, `stuck` and `answers_asked_again` must be 0: no stored answer is paid again.
`calls_paid_again` must be at most the calls that ran in killed workers plus the answers that these
had not stored (`answers_lost_in_killed_workers`). `calls_paid_again_otherwise` is the rest: a
message that was published twice, because it was not confirmed, may be handled in two processes.

`--small`: 60 proofs x 4 critiques, shorter outages. `--engine triton`: 32 proofs x 4 critiques of
  nano-base on a real Triton, which is killed once too; without a call log. The benchmark starts the
  test servers itself. `--keep DIR` keeps all logs.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

from proofloop.schema import keys
from proofloop.schema.ids import PROOF, parse_answer_name
from proofloop.schema.records import PIPELINE_ROLES, Label
from proofloop.store import Store, get_record

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.integration.fleet import Fleet, installation
from tests.integration.processes import folder
from tests.integration.servers import S3, Broker, client_of, cut_connections, own_servers
from tests.integration.triton_server import Triton, own_triton
from tests.waiting import wait_until

REPLICAS, OPTIONS = 2, ("--concurrency", "16")
PROOFS_PER_PROBLEM = 4
SEEN_S = 5.0
"""After a worker finds no stored answer, it reads the records for its prompt. This takes seconds on
a busy machine, or while the store is unavailable.
"""
CALM_S = 90.0
"""How long after the last label messages may wait: for the lease of a killed worker 60 seconds."""

NEEDS = {"broker": set[str](), "connections": {"broker"}, "store": set[str](), "triton": {"store"}}
"""An outage begins only when none of these is still going on. Closing the connections can take as
long as the rest of a small run, so the store's outage does not wait for it.
"""

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
settings = {{ latency_s = {latency_s}, call_log = "{call_log}" }}
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
    """The size of the run and its failures. Times are in seconds; a server fails when its share of
    the run is done.
    """

    proofs: int = 2000
    critiques: int = 8
    waiting: int = 48
    latency_s: float = 0.2
    kill_every_s: float = 2.0
    broker_share: float = 0.3
    cut_share: float = 0.45
    store_share: float = 0.6
    triton_share: float = 0.75
    store_away_s: float = 20.0
    limit_s: float = 3600.0


SMALL = Plan(
    proofs=60,
    critiques=4,
    waiting=8,
    latency_s=0.1,
    kill_every_s=2.0,
    broker_share=0.2,
    cut_share=0.35,
    store_share=0.5,
    store_away_s=5.0,
    limit_s=900.0,
)
"""Few proofs wait at once, so that the run lasts until the last outage."""
ON_TRITON = Plan(
    proofs=32, critiques=4, waiting=8, kill_every_s=2.5, store_away_s=5.0, limit_s=600.0
)


@dataclass(frozen=True)
class Paid:
    """The figures of the call log. A call is paid again if the same call was made before.

    `answers_lost_in_killed_workers`: calls that ended in a worker that was killed, and whose
      question was asked again.
    `answers_asked_again`: calls that began when their answer had been in the store for `SEEN_S`
      seconds.
    """

    calls: int
    calls_paid_again: int
    calls_running_in_killed_workers: int
    answers_lost_in_killed_workers: int
    calls_paid_again_otherwise: int
    answers_asked_again: int


@dataclass(frozen=True)
class Result:
    """The results. `kills` counts killed workers; `paid` exists only for the simulated engine."""

    proofs: int
    labeled: int
    lost: int
    duplicates: int
    stuck: int
    kills: int
    paid: Paid | None
    broker_restarts: int
    connection_cuts: int
    store_absences: int
    triton_restarts: int
    seconds: float

    def figures(self) -> dict[str, float]:
        """All figures by name."""
        figures = asdict(self)
        return figures | (figures.pop("paid") or {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="about a minute")
    parser.add_argument("--engine", choices=("simulated", "triton"), default="simulated")
    parser.add_argument("--proofs", type=int, help="the number of proofs")
    parser.add_argument("--keep", type=Path, help="keep all logs in this folder")
    asked = parser.parse_args()
    plan = ON_TRITON if asked.engine == "triton" else SMALL if asked.small else Plan()
    with ExitStack() as stack:
        place = asked.keep or stack.enter_context(folder("proofloop-chaos-"))
        broker, s3 = stack.enter_context(own_servers())
        triton = stack.enter_context(own_triton()) if asked.engine == "triton" else None
        plan = replace(plan, proofs=asked.proofs or plan.proofs)
        print(json.dumps(chaos(plan, broker, s3, place, triton).figures()))


def chaos(plan: Plan, broker: Broker, s3: S3, place: Path, triton: Triton | None = None) -> Result:
    """Run by the plan, on Triton if one is given; all logs go to `place`."""
    place.mkdir(parents=True, exist_ok=True)
    run = place / "chaos.toml"
    fields = {"problems": plan.proofs // PROOFS_PER_PROBLEM, "per_problem": PROOFS_PER_PROBLEM}
    fields |= {"critiques": plan.critiques, "waiting": plan.waiting}
    if triton:
        engine, prompts = TRITON.format(endpoint=triton.endpoint), "nano"
    else:
        engine = SIMULATED.format(latency_s=plan.latency_s, call_log=place / "call_log")
        prompts = "math"
    run.write_text(RUN.format(**fields, engine=engine, prompts=prompts))
    with installation(broker, s3, place) as (fleet, store, letters):
        for role, replica in product(PIPELINE_ROLES, range(REPLICAS)):
            fleet.start(role, replica, *OPTIONS)
        began = time.monotonic()
        posing = fleet.call("run", str(run))
        try:
            broken = break_things(plan, broker, s3, fleet, store, posing, triton)
        finally:
            posing.kill()
            posing.wait()
        calm = wait_until(
            lambda: not any(depth.ready + depth.later for depth in letters.depths()),
            CALM_S,
            pause_s=0.5,
        )
        seconds = time.monotonic() - began
        stuck = sum(1 for _ in letters.letters()) + (
            0 if calm else sum(d.ready + d.later for d in letters.depths())
        )
        labels = [get_record(store, key, Label) for key in store.list(keys.labels("chaos"))]
        proofs = len({label.proof_id for label in labels})
        return Result(
            proofs=plan.proofs,
            labeled=proofs,
            lost=plan.proofs - proofs,
            duplicates=len(labels) - proofs,
            stuck=stuck,
            kills=len(fleet.killed),
            paid=None
            if triton
            else count_calls(place / "call_log", fleet.killed, times_stored(s3, fleet)),
            broker_restarts=broken.count("broker"),
            connection_cuts=broken.count("connections"),
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
    """Kill workers and servers by the plan until the run is over; returns the servers that were
    stopped.
    """
    dice, began, broken = random.Random(11), time.monotonic(), list[str]()
    absences: dict[str, threading.Thread] = {}
    outages: list[tuple[str, float, Callable[[], object]]] = [
        ("broker", plan.broker_share, partial(restart, broker, 0.0)),
        ("connections", plan.cut_share, partial(cut_connections, broker)),
        ("store", plan.store_share, partial(restart, s3, plan.store_away_s)),
    ]
    outages += [("triton", plan.triton_share, partial(restart, triton, 0.0))] if triton else []
    labeled = 0
    while posing.poll() is None and time.monotonic() - began < plan.limit_s:
        time.sleep(plan.kill_every_s)
        role, replica = dice.choice(PIPELINE_ROLES), dice.randrange(REPLICAS)
        fleet.kill(role, replica)
        fleet.start(role, replica, *OPTIONS)
        absent = {name for name, absence in absences.items() if absence.is_alive()}
        if "store" not in absent:
            labeled = sum(1 for _ in store.list(keys.labels("chaos")))
        if outages and labeled > outages[0][1] * plan.proofs and not absent & NEEDS[outages[0][0]]:
            name, _, outage = outages.pop(0)
            broken.append(name)
            absences[name] = threading.Thread(target=outage)
            absences[name].start()
        tell(labeled, plan.proofs, len(fleet.killed), broken, time.monotonic() - began)
    for absence in absences.values():
        absence.join()
    return broken


def restart(server: Broker | S3 | Triton, away_s: float) -> None:
    """Kill the server and start it again after the outage."""
    # Main and the test only pass their own.
    assert server.kill is not None and server.start is not None
    server.kill()
    time.sleep(away_s)
    server.start()


def tell(labeled: int, proofs: int, kills: int, broken: list[str], seconds: float) -> None:
    left = (
        f"{seconds * (proofs - labeled) / labeled:.0f} s left" if labeled else "time left unknown"
    )
    gone = f", taken away: {' and '.join(broken)}" if broken else ""
    print(
        f"{seconds:.0f} s: {labeled} of {proofs} proofs labeled, {kills} kills{gone}; {left}",
        file=sys.stderr,
    )


def count_calls(call_log: Path, killed: list[int], stored: dict[str, float]) -> Paid:
    """The figures from the call log. `stored`: the Unix time in seconds at which each key was
    written.
    """
    asked: dict[str, list[float]] = defaultdict(list)
    running, finished = Counter[str](), Counter[str]()
    for file in call_log.iterdir():
        lines = [line.split() for line in file.read_text().splitlines()]
        ended = {request for what, request, _ in lines if what == "ended"}
        began = {request: float(at_s) for what, request, at_s in lines if what == "began"}
        for request, at_s in began.items():
            question = request.rpartition(":")[0]
            asked[question].append(at_s)
            if int(file.name.partition("-")[0]) in killed:
                (finished if request in ended else running)[question] += 1
    again = {question: len(times) - 1 for question, times in asked.items()}
    late = sum(
        at_s > stored.get(key_of(asks), at_s) + SEEN_S
        for asks, times in asked.items()
        for at_s in times
    )
    return Paid(
        calls=sum(map(len, asked.values())),
        calls_paid_again=sum(again.values()),
        calls_running_in_killed_workers=running.total(),
        answers_lost_in_killed_workers=sum(
            min(max(0, more - running[question]), finished[question])
            for question, more in again.items()
        ),
        calls_paid_again_otherwise=sum(
            max(0, more - running[question] - finished[question])
            for question, more in again.items()
        ),
        answers_asked_again=late,
    )


def key_of(question: str) -> str:
    """The key of the answer to a call in the call log, which is named like
    `verifier:<proof>:critique-2`.
    """
    _, proof_id, name = question.split(":")
    return keys.answer("chaos", proof_id, parse_answer_name(name) or PROOF)


def times_stored(s3: S3, fleet: Fleet) -> dict[str, float]:
    """The Unix time in seconds at which each of the run's objects was written."""
    bucket, prefix = (fleet.environment[f"PROOFLOOP_S3_{name}"] for name in ("BUCKET", "PREFIX"))
    found = client_of(s3).list_objects(bucket, f"{prefix}/{keys.run('chaos')}", recursive=True)
    return {
        each.object_name.removeprefix(f"{prefix}/"): each.last_modified.timestamp()
        for each in found
    }


if __name__ == "__main__":
    main()
