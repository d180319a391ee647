"""Loads a full verifier deployment: 5,000 critiques in flight on four processes and 25,000 queued,
on a real broker.

The engine is simulated, with long calls that end one after another; the store is a real S3 server.
Each second the benchmark reads the memory of the four processes and the broker's figures of their
queue. One meta-verifier and one labeler receive the verifiers' results, and short messages at a
steady pace. `short_wait_p99_s` is the wait of those while the verifiers are full, as the upper
bound of a bucket of `proofloop_queue_wait_seconds`.

The run ends when all messages are handled, or `--seconds` after the verifiers are full. The last
line is JSON. Memory is that of all four processes after a quarter, half, three quarters and all of
the messages, and its maximum. `--latency` sets the duration of the median call. `--small`: 200 in
flight, 400 queued.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from proofloop.bus.rabbitmq import RabbitBus
from proofloop.bus.topology import Topology
from proofloop.config.run_file import parse_runspec
from proofloop.runs.create import create_run
from proofloop.schema import keys
from proofloop.schema.events import ProofReviewed, ProofWritten
from proofloop.schema.ids import SELF_CRITIQUE
from proofloop.schema.records import NOT_SAMPLED, Problem, Proof, Verdict
from proofloop.store import Store, put_record

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.integration.fleet import Fleet, installation
from tests.integration.processes import folder, free_ports
from tests.integration.servers import S3, Broker, own_servers

PROCESSES, CRITIQUES_PER_PROOF, SHORT_ROLES = 4, 100, ("meta_verifier", "labeler")
PACE_S = 0.1
"""The pause between two short messages."""

FULL = 0.95
"""The share of slots in use from which the verifiers count as full: some calls are always just
ending.
"""

LATENCY_SIGMA = 0.2
"""With the default, the longest call takes ten times the median and delays the end of the run."""


@dataclass(frozen=True)
class Plan:
    """The load. `latency_s`: duration of the median call; `seconds`: the longest time to watch full
    verifiers.
    """

    messages: int = 30_000
    concurrency: int = 1250
    latency_s: float = 40.0
    seconds: float = 720.0
    fill_limit_s: float = 120.0
    stop_early: bool = False


SMALL = Plan(messages=600, concurrency=50, latency_s=4.0, seconds=15.0, fill_limit_s=60.0)


@dataclass(frozen=True)
class Sample:
    """A sample: messages in flight at the verifiers, messages waiting for them, and the four
    processes' memory.
    """

    in_flight: int
    queued: int
    consumers: int
    handled: int
    memory_mb: float


@dataclass(frozen=True)
class Result:
    """The figures of the run."""

    messages: int
    handled: int
    in_flight_max: int
    queued_max: int
    memory_mb_start: int
    memory_mb_full: int
    memory_mb_quarters: tuple[int, ...]
    memory_mb_end: int
    memory_mb_max: int
    consumers_lost: int
    messages_failed: int
    short_messages: int
    short_wait_p99_s: float
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="less than a minute")
    parser.add_argument("--seconds", type=float, help="the longest time to watch full verifiers")
    parser.add_argument("--latency", type=float, help="duration of the median call in seconds")
    parser.add_argument(
        "--stop-early", action="store_true", help="running calls also check for their proof's label"
    )
    asked = parser.parse_args()
    plan = SMALL if asked.small else Plan()
    seconds, latency_s = asked.seconds or plan.seconds, asked.latency or plan.latency_s
    plan = replace(plan, seconds=seconds, latency_s=latency_s, stop_early=asked.stop_early)
    with folder("proofloop-load-") as place, own_servers() as (broker, s3):
        print(json.dumps(asdict(load(plan, broker, s3, place))))


def load(plan: Plan, broker: Broker, s3: S3, place: Path) -> Result:
    """Fill the verifiers by the plan and sample them; the log goes to `place`."""
    engine = {"latency_s": plan.latency_s, "max_concurrency": plan.concurrency}
    labeling = {"n": CRITIQUES_PER_PROOF, "stop_early": plan.stop_early}
    with installation(broker, s3, place) as (fleet, store, _):
        proofs = create_load(
            store,
            "load",
            plan.messages // CRITIQUES_PER_PROOF,
            labeling,
            {**engine, "latency_sigma": LATENCY_SIGMA},
        )
        ports = start(fleet, plan)
        watch = Watch(
            fleet, f"{broker.api}/api/queues/%2F/{Topology(fleet.namespace).queue('verifier').name}"
        )
        watch.until("consumers", PROCESSES, plan.fill_limit_s)
        began, first = time.monotonic(), watch.look()
        bus = RabbitBus(broker.url, namespace=fleet.namespace, roles=["verifier", *SHORT_ROLES])
        with short_messages(bus, proofs):
            publish(bus, plan, proofs)
            full = watch.until(
                "in_flight", math.ceil(FULL * PROCESSES * plan.concurrency), plan.fill_limit_s
            )
            waits = short_waits(ports)
            watch.stay(plan)
            waits = short_waits(ports) - waits
        bus.close()
        failed = fleet.log.read_text().count("delivery_failed")
        return Result(
            messages=plan.messages,
            handled=watch.samples[-1].handled,
            in_flight_max=max(sample.in_flight for sample in watch.samples),
            queued_max=max(sample.queued for sample in watch.samples),
            memory_mb_start=round(first.memory_mb),
            memory_mb_full=round(full.memory_mb),
            memory_mb_quarters=watch.memory_at_quarters(),
            memory_mb_end=round(watch.samples[-1].memory_mb),
            memory_mb_max=round(max(sample.memory_mb for sample in watch.samples)),
            consumers_lost=watch.consumers_lost(),
            messages_failed=failed,
            short_messages=round(max(waits.values(), default=0)),
            short_wait_p99_s=p99(waits),
            seconds=round(time.monotonic() - began, 1),
        )


def create_load(
    store: Store, run_id: str, count: int, labeling: dict[str, Any], engine: dict[str, Any]
) -> list[str]:
    """Create a run with so many perfect proofs, and return their ids. Their critiques claim no
    issue, so the later roles make no model calls.

    `engine`: settings of the simulated engine.
    """
    fields = {
        "name": run_id,
        "prompts": "math",
        "problems": {"domain": "nano"},
        "engine": {"kind": "simulated", "settings": {"verifier_noise": 0.0, **engine}},
        "labeling": {"m": 1, "k": labeling["n"], **labeling},
    }
    create_run(store, parse_runspec(fields, run_id), resume=False)
    proofs = [f"proof-{number:03d}" for number in range(count)]
    put_record(
        store, keys.problem(run_id, "problem"), Problem(id="problem", question="What is 1 + 1?")
    )
    origin = NOT_SAMPLED.model_copy(update={"model_version": "load"})
    for proof_id in proofs:
        proof = Proof(
            id=proof_id,
            run_id=run_id,
            problem_id="problem",
            group="problem",
            solution="Simulated proof ab of quality 1.\n" + 4000 * "x",
            self_analysis="It is right.",
            verdict=Verdict(outcome="valid", score=1.0),
            provenance=origin,
            verifier_version="load",
        )
        put_record(store, keys.proof(run_id, proof_id), proof)
    return proofs


def critiques(run_id: str, proofs: list[str], each: int) -> Iterator[ProofWritten]:
    """The messages for so many critiques of each proof, all proofs' first ones first."""
    for index, proof_id in product(range(each), proofs):
        yield ProofWritten(run_id=run_id, proof_id=proof_id, index=index, verifier_version="load")


def start(fleet: Fleet, plan: Plan) -> list[int]:
    """Start all processes; returns the metrics ports of the roles with short messages."""
    for replica in range(PROCESSES):
        fleet.start("verifier", replica, "--concurrency", str(plan.concurrency))
    ports = free_ports(len(SHORT_ROLES))
    for role, port in zip(SHORT_ROLES, ports, strict=True):
        fleet.start(role, 0, "--concurrency", "16", "--metrics-port", str(port))
    return ports


def publish(bus: RabbitBus, plan: Plan, proofs: list[str]) -> None:
    events = critiques("load", proofs, CRITIQUES_PER_PROOF)
    published = 0
    while batch := list(islice(events, 1000)):
        bus.publish(batch)
        published += len(batch)
        print(f"{published} of {plan.messages} messages published", file=sys.stderr)


@contextmanager
def short_messages(bus: RabbitBus, proofs: list[str]) -> Iterator[None]:
    """Send short messages, which ask to judge self-evaluations, at a steady pace while the block
    runs.
    """
    over = threading.Event()

    def send() -> None:
        for proof_id in cycle(proofs):
            if over.wait(PACE_S):
                return
            bus.publish([ProofReviewed(run_id="load", proof_id=proof_id, index=SELF_CRITIQUE)])

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        over.set()
        sender.join()


@dataclass
class Watch:
    """Takes and keeps a sample each second."""

    fleet: Fleet
    queue: str

    def __post_init__(self) -> None:
        self.samples: list[Sample] = []
        self._began = time.monotonic()

    def look(self) -> Sample:
        """Take a sample. The broker's figures may be five seconds old."""
        seen = httpx.get(self.queue, timeout=30.0).json()
        settled = seen.get("message_stats", {}).get("ack", 0)
        pids = [
            worker.pid for (role, _), worker in self.fleet.workers.items() if role == "verifier"
        ]
        sample = Sample(
            in_flight=seen.get("messages_unacknowledged", 0),
            queued=seen.get("messages_ready", 0),
            consumers=seen.get("consumers", 0),
            handled=settled,
            memory_mb=sum(map(resident_mb, pids)),
        )
        self.samples.append(sample)
        return sample

    def until(self, what: str, least: int, limit_s: float) -> Sample:
        """Sample until the figure reaches its least value. Raises RuntimeError with the end of the
        log.
        """
        deadline = time.monotonic() + limit_s
        while getattr(sample := self.look(), what) < least:
            self._tell()
            if time.monotonic() > deadline:
                log = self.fleet.log.read_text()[-2000:]
                raise RuntimeError(
                    f"{what} is {getattr(sample, what)} after {limit_s:.0f} s, not {least}: {log}"
                )
            time.sleep(1)
        return sample

    def stay(self, plan: Plan) -> None:
        """Sample until all messages are handled or the time is over."""
        deadline = time.monotonic() + plan.seconds
        while self.look().handled < plan.messages and time.monotonic() < deadline:
            self._tell()
            time.sleep(1)

    def memory_at_quarters(self) -> tuple[int, ...]:
        handled = self.samples[-1].handled
        shares = (handled * quarter / 4 for quarter in range(1, 5))
        return tuple(
            round(next(one.memory_mb for one in self.samples if one.handled >= share))
            for share in shares
        )

    def consumers_lost(self) -> int:
        """The numbers of lost connections, ended verifiers and consumers that the broker missed."""
        lost = self.fleet.log.read_text().count("broker_lost")
        ended = sum(worker.poll() is not None for worker in self.fleet.workers.values())
        there = [sample.consumers for sample in self.samples]
        return max(lost + ended, PROCESSES - min(there[there.index(PROCESSES) :]))

    def _tell(self) -> None:
        one = self.samples[-1]
        print(
            f"{time.monotonic() - self._began:.0f} s: {one.in_flight} in flight, {one.queued}"
            f" queued, {one.handled}"
            f" handled, {one.consumers} consumers, {one.memory_mb:.0f} MB",
            file=sys.stderr,
        )


def resident_mb(process: int) -> float:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")), 0.0)


def short_waits(ports: list[int]) -> Counter[float]:
    """Cumulative counts of messages by the upper bound of their wait's bucket, over the roles."""
    waits: Counter[float] = Counter()
    for port in ports:
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30.0).text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == "proofloop_queue_wait_seconds_bucket":
                    waits[float(sample.labels["le"])] += int(sample.value)
    return waits


def p99(waits: Counter[float]) -> float:
    """The upper bound of the bucket that contains the 99th percentile."""
    total = max(waits.values(), default=0)
    return min((end for end, seen in waits.items() if seen >= 0.99 * total), default=math.nan)


if __name__ == "__main__":
    main()
