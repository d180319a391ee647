"""Tests the chart's autoscaling: real verifier processes follow a real queue by the rule of the
rendered ScaledObject.

A burst of 5,000 critiques arrives at one verifier. The rule of tests/helm/autoscaler.py, with the
chart's numbers, starts more verifiers and stops them by SIGTERM with the Deployment's drain and
grace times. The benchmark counts messages as KEDA does: by the broker's management API, including
those in flight. While pods stop, more critiques arrive, which gives the stopping pods work. The
engine is simulated; its call log shows calls that were made twice. The factor `faster` shortens all
times of the chart and the broker's counting interval. The last line is JSON:

drain_ratio_to_ideal   time from the burst to its last critique, relative to the ideal time: the
                       work (critiques times the mean call) on as many pods as the rule allows at
                       each moment, without start-up and idle slots
at_capacity            critiques per second with all pods and a full queue, relative to the maximum
                       of their slots
lost, duplicates       critiques without record or announcement; critiques announced or requested
                       twice
calls_in_work_at_stop  calls that ran in stopping pods; `killed`: pods that did not end in time

`--small`: less than a minute, 3 pods.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from urllib.parse import quote

import httpx

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.chaos import count_calls
from benchmarks.load import CRITIQUES_PER_PROOF, LATENCY_SIGMA, create_load, critiques
from tests.helm.autoscaler import Memory, Rule, decide, ideal_s, rule_of
from tests.helm.chart import Object, render
from tests.integration.fleet import Fleet, installation
from tests.integration.processes import folder
from tests.integration.servers import S3, Broker, own_servers, taken_from

from proofloop.bus.dead_letters import DeadLetters
from proofloop.bus.rabbitmq import RabbitBus
from proofloop.bus.task_message import event_of
from proofloop.bus.topology import Topology
from proofloop.schema import keys
from proofloop.schema.events import OfProof, decode
from proofloop.store import Store

NAME = "scale"
COUNTS_S = 5.0
"""The broker's default interval of counting: its counts may be this old."""

TRICKLE = 1.0
"""While pods stop, the number of running calls is one pod's slots times this."""


@dataclass(frozen=True)
class Plan:
    """The burst, the most pods, and the slots of each. `latency_s`: duration of the median call in
    real seconds.
    """

    critiques: int = 5000
    most: int = 6
    concurrency: int = 64
    latency_s: float = 60.0
    faster: float = 10.0
    limit_s: float = 1500.0

    @property
    def mean_call_s(self) -> float:
        return self.latency_s * math.exp(LATENCY_SIGMA**2 / 2)


SMALL = Plan(critiques=250, most=3, concurrency=8, latency_s=1.0, faster=60.0, limit_s=150.0)


@dataclass(frozen=True)
class Result:
    """The figures of the run, in real seconds."""

    drain_ratio_to_ideal: float
    max_workers: int
    lost: int
    duplicates: int
    at_capacity: float
    workers_at_end: int
    calls_in_work_at_stop: int
    killed: int
    critiques: int
    critiques_while_shrinking: int
    drain_s: float
    ideal_s: float
    shrink_s: float
    faster: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="less than a minute")
    plan = SMALL if parser.parse_args().small else Plan()
    look_s = COUNTS_S / plan.faster
    with folder("proofloop-scale-") as place, own_servers(look_s=look_s) as (broker, s3):
        print(json.dumps(asdict(scale(plan, broker, s3, place))))


def scale(plan: Plan, broker: Broker, s3: S3, place: Path) -> Result:
    """Send the burst by the plan and let the rule follow it; the log and the call log go to
    `place`.
    """
    with installation(broker, s3, place) as (fleet, store, letters):
        objects = render(values(plan, fleet.namespace))
        trial = Trial(plan, broker, fleet, letters, store, objects)
        trial.follow()
        return trial.result(count_calls(place / "call_log", fleet.killed, {}).calls_paid_again)


def values(plan: Plan, namespace: str) -> Object:
    """The chart's values: the defaults except for the numbers of pods and slots."""
    scaling = {"kind": "keda", "maxReplicas": plan.most}
    verifier = {"concurrency": plan.concurrency, "scaling": scaling}
    return {"broker": {"namespace": namespace}, "roles": {"verifier": verifier}}


class Pods:
    """The processes of a rendered Deployment. A stopping process has the Deployment's time to
    end.
    """

    def __init__(self, fleet: Fleet, objects: Object, faster: float, call_log: Path) -> None:
        pod = objects["Deployment/proofloop-verifier"]["spec"]["template"]["spec"]
        self._command = pod["containers"][0]["command"]
        self._end_s = pod["terminationGracePeriodSeconds"] / faster
        self._fleet, self._call_log, self._dice = fleet, call_log, random.Random(5)
        settings = objects["ConfigMap/proofloop-verifier"]["data"]
        for name in ("PROOFLOOP_DRAIN_S", "PROOFLOOP_GRACE_S"):
            fleet.environment[name] = str(float(settings[name]) / faster)
        self.running: list[int] = []
        self.in_work_at_stop = 0
        self._ending: dict[int, float] = {}
        self._started = 0

    def become(self, wanted: int) -> None:
        """Start missing pods, or stop surplus ones in random order, as Kubernetes does."""
        while len(self.running) < wanted:
            program, serve, role, *options = self._command
            assert (program, serve, role) == ("proofloop", "serve", "verifier"), self._command
            self._fleet.start(role, self._started, *options)
            self.running.append(self._started)
            self._started += 1
        while len(self.running) > wanted:
            number = self.running.pop(self._dice.randrange(len(self.running)))
            self.in_work_at_stop += self._in_work(number)
            self._process(number).send_signal(signal.SIGTERM)
            self._ending[number] = time.monotonic() + self._end_s

    def look(self) -> bool:
        """Kill the stopping pods whose time is over; true if some are still stopping.

        Raises RuntimeError if a pod ended by itself or with an error.
        """
        for number in self._started_numbers():
            code = self._process(number).poll()
            if code is not None and (number in self.running or code != 0):
                raise RuntimeError(
                    f"verifier {number} ended with {code}: {self._fleet.log.read_text()[-2000:]}"
                )
            if code is None and time.monotonic() > self._ending.get(number, math.inf):
                self._fleet.kill("verifier", number)
            if code is not None or self._process(number).poll() is not None:
                self._ending.pop(number, None)
        return bool(self._ending)

    def _started_numbers(self) -> list[int]:
        return [*self.running, *self._ending]

    def _process(self, number: int) -> subprocess.Popen[bytes]:
        return self._fleet.workers["verifier", number]

    def _in_work(self, number: int) -> int:
        """The running calls of a process, by its file in the call log."""
        pages = self._call_log.glob(f"{self._process(number).pid}-*")
        words = Counter(line.split()[0] for page in pages for line in page.read_text().splitlines())
        return words["began"] - words["ended"]


@dataclass(frozen=True)
class Sample:
    """A sample: the numbers of pods and of stored critiques."""

    at_s: float
    pods: int
    done: int


@dataclass
class Trial:
    """Sends the burst, applies the rule, and takes samples."""

    plan: Plan
    broker: Broker
    fleet: Fleet
    letters: DeadLetters
    store: Store
    objects: Object
    samples: list[Sample] = field(default_factory=list)
    asked: int = 0

    def __post_init__(self) -> None:
        scaled = self.objects["ScaledObject/proofloop-verifier"]
        self.rule: Rule = rule_of(scaled).faster(self.plan.faster)
        self._counted = scaled["spec"]["triggers"][0]["metadata"]
        self._memory, self._next_look = Memory(), 0.0
        self.pods = Pods(
            self.fleet, self.objects, self.plan.faster, self.fleet.log.parent / "call_log"
        )
        engine = {
            "latency_s": self.plan.latency_s,
            "latency_sigma": LATENCY_SIGMA,
            "max_concurrency": self.plan.concurrency,
            "call_log": str(self.fleet.log.parent / "call_log"),
        }
        count = 2 * math.ceil(self.plan.critiques / CRITIQUES_PER_PROOF)
        labeling = {"n": CRITIQUES_PER_PROOF, "stop_early": False}
        proofs = create_load(self.store, NAME, count, labeling, engine)
        self._critiques = critiques(NAME, proofs, CRITIQUES_PER_PROOF)

    def follow(self) -> None:
        """Scale from one pod to the maximum and back, until no work is left."""
        self.pods.become(self.rule.least)
        bus = RabbitBus(self.broker.url, namespace=self.fleet.namespace)
        self._wait(
            lambda: self._counts().get("consumers", 0) == self.rule.least,
            "the first verifier is ready",
        )
        self.began = time.monotonic()
        self._publish(bus, self.plan.critiques)
        self._wait(lambda: self._step() >= self.plan.critiques, "the burst is done")
        self.drained = time.monotonic()
        self._wait(lambda: self._trickle(bus) == self.rule.least, "the pods are as few as before")
        self.shrunk = time.monotonic()
        self._wait(lambda: self._step() >= self.asked and not self.pods.look(), "all is done")
        bus.close()

    def result(self, asked_again: int) -> Result:
        seen = Counter((event.proof_id, event.index) for event in self._announced())
        stored = set(self.store.list(keys.proofs(NAME)))
        best_s = ideal_s(
            self.rule, self.plan.concurrency, self.plan.critiques * self.plan.mean_call_s
        )
        return Result(
            drain_ratio_to_ideal=round((self.drained - self.began) / best_s, 3),
            max_workers=max(sample.pods for sample in self.samples),
            lost=self.asked - sum(keys.critique(NAME, *critique) in stored for critique in seen),
            duplicates=seen.total() - len(seen) + asked_again,
            at_capacity=round(self._at_capacity(), 3),
            workers_at_end=self.samples[-1].pods,
            calls_in_work_at_stop=self.pods.in_work_at_stop,
            killed=len(self.fleet.killed),
            critiques=self.plan.critiques,
            critiques_while_shrinking=self.asked - self.plan.critiques,
            drain_s=round(self.drained - self.began, 1),
            ideal_s=round(best_s, 1),
            shrink_s=round(self.shrunk - self.drained, 1),
            faster=self.plan.faster,
        )

    def _publish(self, bus: RabbitBus, count: int) -> None:
        bus.publish(islice(self._critiques, count))
        self.asked += count

    def _step(self) -> int:
        """Apply the rule if it is due; returns the number of stored critiques."""
        now_s = time.monotonic() - self.began
        if now_s >= self._next_look:
            self._next_look = now_s + self.rule.polling_s
            messages = self._counts().get(messages_field(self._counted))
            if messages is not None:  # a busy broker may not know its figures yet: KEDA waits too
                wanted, self._memory = decide(
                    self.rule, self._memory, now_s, len(self.pods.running), messages
                )
                self.pods.become(wanted)
        self.pods.look()
        done = next(depth.ready for depth in self.letters.depths() if depth.role == "meta_verifier")
        self.samples.append(Sample(now_s, len(self.pods.running), done))
        return done

    def _trickle(self, bus: RabbitBus) -> int:
        """Send some more critiques if needed; returns the number of pods."""
        self._step()
        due = (
            TRICKLE
            * self.plan.concurrency
            / self.plan.mean_call_s
            * (time.monotonic() - self.drained)
        )
        self._publish(bus, math.floor(due) - (self.asked - self.plan.critiques))
        return len(self.pods.running)

    def _wait(self, is_so: Callable[[], bool], what: str) -> None:
        """Wait for a condition. Raises RuntimeError with the end of the log."""
        deadline, told = time.monotonic() + self.plan.limit_s, 0.0
        while not is_so():
            if time.monotonic() > deadline:
                log = self.fleet.log.read_text()[-2000:]
                raise RuntimeError(
                    f"not within {self.plan.limit_s:.0f} s: {what}; {self.samples[-1:]} {log}"
                )
            if self.samples and time.monotonic() > told + 5:
                told, last = time.monotonic(), self.samples[-1]
                print(
                    f"{last.at_s:.0f} s: {last.pods} pods, {last.done} of {self.asked} critiques",
                    file=sys.stderr,
                )
            time.sleep(0.2)

    def _counts(self) -> Object:
        """The queue's figures, requested like KEDA does."""
        vhost, queue = (quote(self._counted[name], safe="") for name in ("vhostName", "queueName"))
        counts: Object = httpx.get(
            f"{self.broker.api}/api/queues/{vhost}/{queue}", timeout=30.0
        ).json()
        return counts

    def _announced(self) -> Iterator[OfProof]:
        """All reviews that the verifiers announced."""
        queue = Topology(self.fleet.namespace).queue("meta_verifier").name
        for _, body in taken_from(self.broker.url, queue):
            event = decode(event_of(body))
            assert isinstance(event, OfProof)
            yield event

    def _at_capacity(self) -> float:
        """The rate with all pods and a long queue, relative to the slots' maximum; 0 if there was
        no such time.

        The first samples are left out, until all pods have run for the duration of a call.
        """
        slots = self.rule.most * self.plan.concurrency
        full = [
            one
            for one in self.samples
            if one.pods == self.rule.most and self.plan.critiques - one.done > 2 * slots
        ]
        settled = [one for one in full if one.at_s > full[0].at_s + self.plan.latency_s]
        if len(settled) < 2:
            return 0.0
        per_second = (settled[-1].done - settled[0].done) / (settled[-1].at_s - settled[0].at_s)
        return per_second * self.plan.mean_call_s / slots


def messages_field(counted: Object) -> str:
    """The queue's figure that KEDA's trigger uses."""
    assert (counted["protocol"], counted["mode"]) == ("http", "QueueLength"), counted
    return "messages" if counted["excludeUnacknowledged"] == "false" else "messages_ready"


if __name__ == "__main__":
    main()
