"""Changes one role's model under load in the whole system, and back; checks that no other role is
affected.

Services run as processes on a real broker and store, with a Triton for each version of the verifier
as the chart renders it: its files, and the command of its job. The benchmark starts proofs all the
time. Version 1 serves first. An upgrade adds the server of version 2 and promotes 2; when no proof
uses 1 any more, its server ends. Then 1 is added again, `proofloop models rollback` puts it in
service, and when no proof uses 2 any more, `helm rollback` renders only 1. Finally the benchmark
reads the records. The last line is JSON:

failed    failed model calls, and dead letters
lost      proofs without a label, and missing critiques
mixed     proofs with critiques of two versions, and critiques of a wrong version
others    answers of generator and meta-verifier from a model of another role

`--small`: a shorter run.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

from tritonclient.grpc import InferenceServerClient

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.swap import FIRST, SECOND, publish_versions
from tests.builders import RUN
from tests.helm.chart import Object, render
from tests.integration.fleet import Fleet, installation
from tests.integration.processes import folder
from tests.integration.servers import S3, Broker, own_servers
from tests.integration.triton_server import Triton, own_triton

from proofloop.bus.dead_letters import DeadLetters
from proofloop.bus.rabbitmq import RabbitBus
from proofloop.config.run_file import load_runspec
from proofloop.engine.triton.contract import triton_name
from proofloop.runs.create import create_run
from proofloop.runs.model_registry import served_log
from proofloop.runs.planned import planned
from proofloop.schema import keys
from proofloop.schema.records import Critique, MetaCritique, Proof
from proofloop.store import Store, find_record, get_record

BASE, CRITIQUES = "nano-base", 4
REPLICAS = {"generator": 1, "verifier": 2, "meta_verifier": 1, "labeler": 1}
CALL_S = 300.0
"""The time limit of `proofloop models` on a busy machine; it usually takes less than ten
seconds.
"""

SERVED_S = 1.0
"""After a promotion a generator may give its next proofs to the old version for half a second."""

RUN_FILE = """
name = "{name}"
prompts = "nano"
[problems]
domain = "nano"
split = "test"
count = 100000
proofs_per_problem = 1
[engine]
kind = "triton"
[engine.settings]
load_models = false
endpoints = {endpoints}
[models]
generator = "nano-base"
verifier = "{version}"
meta_verifier = "nano-base"
[labeling]
n = 4
m = 1
k = 2
stop_early = false
"""


@dataclass(frozen=True)
class Plan:
    """The load: proofs in flight, and the least number of proofs labeled between two changes."""

    in_flight: int = 48
    between: int = 150
    limit_s: float = 900.0


SMALL = Plan(in_flight=8, between=6, limit_s=500.0)


@dataclass(frozen=True)
class Result:
    """What the records say. `drain_s`: how long proofs asked for a version after another was put in
    service.
    """

    proofs: int
    critiques: int
    critiques_by_version: dict[str, int]
    failed: int
    lost: int
    mixed: int
    others: int
    served: list[str]
    in_flight_at_change: list[int]
    drain_s: list[float]
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="a shorter run")
    plan = SMALL if parser.parse_args().small else Plan()
    with folder("proofloop-rollout-") as place, own_servers() as (broker, s3):
        print(json.dumps(asdict(rollout(plan, broker, s3, place))))


def rollout(plan: Plan, broker: Broker, s3: S3, place: Path) -> Result:
    """Change the verifier's model and change it back while proofs are posed; the log goes to
    `place`.
    """
    with ExitStack() as stack:
        fleet, store, letters = stack.enter_context(installation(broker, s3, place))
        publish_versions(store, place)
        tritons = [stack.enter_context(own_triton()) for _ in range(3)]
        release = Release(fleet, place, dict(zip((BASE, FIRST, SECOND), tritons, strict=True)))
        run = place / "rollout.toml"
        endpoints = json.dumps([triton.endpoint for triton in tritons])
        run.write_text(RUN_FILE.format(name=RUN, endpoints=endpoints, version=FIRST))
        create_run(store, load_runspec(run), resume=False)
        # Its queues, before anybody serves them.
        bus = RabbitBus(broker.url, namespace=fleet.namespace, roles=REPLICAS)
        stack.callback(bus.close)
        return Rollout(plan, fleet, store, letters, release).drive(bus)


@dataclass
class Release:
    """The chart's model servers as processes: exactly the rendered ones run."""

    fleet: Fleet
    place: Path
    tritons: dict[str, Triton]
    running: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        for triton in self.tritons.values():
            assert triton.stop
            triton.stop()

    def apply(self, version: str, keep: list[str]) -> None:
        """Do the work of `helm upgrade --wait` or `helm rollback --wait`: the servers, then the
        job.
        """
        objects = render(values(version, keep))
        servers = {
            one["metadata"]["annotations"]["proofloop/version"]: name
            for name, one in models(objects)
        }
        for gone in self.running - set(servers):
            self._stop(gone)
        for new in sorted(set(servers) - self.running):
            self._start(new, objects[servers[new].replace("Deployment/", "ConfigMap/")]["data"])
        job = objects["Job/proofloop-verifier-promote"]["spec"]["template"]["spec"]["containers"][
            0
        ]["command"]
        self.call(*job[1:])

    def call(self, *words: str) -> None:
        """Run `proofloop ...`. Raises RuntimeError with the end of the log if it fails."""
        if self.fleet.call(*words).wait(CALL_S) != 0:
            raise RuntimeError(f"{' '.join(words)} failed: {self.fleet.log.read_text()[-2000:]}")

    def _start(self, version: str, files: dict[str, str]) -> None:
        """Start a server with the files of its ConfigMap, and wait until its model is ready."""
        triton, name = self.tritons[version], triton_name(version)
        assert triton.repository and triton.start
        for path in ("config.pbtxt", "1/model.py"):
            file = triton.repository / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(files[file.name])
        settings = self.place / name
        settings.mkdir(exist_ok=True)
        (settings / "model.yaml").write_text(files["model.yaml"])
        where = {
            "PROOFLOOP_SERVING_SETTINGS": str(settings),
            "PROOFLOOP_CACHE": str(settings / "cache"),
        }
        ours = {
            name: value
            for name, value in self.fleet.environment.items()
            if name.startswith("PROOFLOOP_")
        }
        triton.environment.update({**ours, **where})
        triton.start()
        with InferenceServerClient(triton.endpoint) as client:
            client.load_model(name)
        self.running.add(version)

    def _stop(self, version: str) -> None:
        stop = self.tritons[version].stop
        assert stop
        stop()
        self.running.remove(version)


def values(version: str, keep: list[str]) -> Object:
    """The chart's values for this release; generator and meta-verifier share one server."""
    verifier = {"model": {"version": version, "keep": keep, "promoteIn": RUN}}
    return {"roles": {"generator": {"model": {"version": BASE}}, "verifier": verifier}}


def models(objects: Object) -> Iterator[tuple[str, Object]]:
    """The deployments of model servers."""
    for name, one in objects.items():
        if one["kind"] == "Deployment" and "proofloop/version" in one["metadata"].get(
            "annotations", {}
        ):
            yield name, one


@dataclass
class Rollout:
    """The run: poses proofs, changes the model, and reads the records afterwards."""

    plan: Plan
    fleet: Fleet
    store: Store
    letters: DeadLetters
    release: Release
    posed: list[str] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    drains: list[float] = field(default_factory=list)

    def drive(self, bus: RabbitBus) -> Result:
        began = time.monotonic()
        self.release.apply(FIRST, keep=[])
        for role, replicas in REPLICAS.items():
            for replica in range(replicas):
                self.fleet.start(role, replica, "--concurrency", "16")
        with self._posing(bus):
            self._go_on("before the upgrade")
            self._change(lambda: self.release.apply(SECOND, keep=[FIRST]))
            self._drain(FIRST)
            self.release.apply(SECOND, keep=[])
            self._go_on("after the upgrade")
            self.release.apply(SECOND, keep=[FIRST])
            self._change(lambda: self.release.call("models", "rollback", "verifier", "--run", RUN))
            self._drain(SECOND)
            self.release.apply(FIRST, keep=[])
            self._go_on("after the rollback")
        self._wait(lambda: self._labeled() == len(self.posed), "all proofs have a label")
        return self._result(time.monotonic() - began)

    @contextmanager
    def _posing(self, bus: RabbitBus) -> Iterator[None]:
        """Keep the planned number of proofs in flight while the block runs."""
        over = threading.Event()
        events = planned(load_runspec(self.release.place / "rollout.toml"), self.store)

        def pose() -> None:
            while not over.wait(0.3):
                new = list(islice(events, self.plan.in_flight - len(self.posed) + self._labeled()))
                bus.publish(new)
                self.posed += [event.proof_id for event in new]

        poser = threading.Thread(target=pose)
        poser.start()
        try:
            yield
        finally:
            over.set()
            poser.join()

    def _change(self, action: Callable[[], None]) -> None:
        """Change the model while proofs are in flight."""
        self.waiting.append(0)

        def is_busy() -> bool:
            self.waiting[-1] = len(self.posed) - self._labeled()
            return self.waiting[-1] > 0

        self._wait(is_busy, "a proof in flight")
        action()

    def _go_on(self, when: str) -> None:
        wanted = self._labeled() + self.plan.between
        self._wait(lambda: self._labeled() >= wanted, f"{self.plan.between} more labels {when}")

    def _drain(self, version: str) -> None:
        """Wait until no proof uses the version, which no longer serves new proofs."""
        began = time.monotonic()
        time.sleep(SERVED_S)
        unfinished = {proof_id for proof_id in self.posed if not self._is_labeled(proof_id)}

        def is_drained() -> bool:
            unfinished.difference_update(
                [proof_id for proof_id in unfinished if self._is_labeled(proof_id)]
            )
            return not any(self._asks(proof_id, version) for proof_id in unfinished)

        self._wait(is_drained, f"nothing asks for {version}")
        self.drains.append(round(time.monotonic() - began, 1))

    def _asks(self, proof_id: str, version: str) -> bool:
        """Whether this proof or its critiques may still use the version."""
        proof = find_record(self.store, keys.proof(RUN, proof_id), Proof)
        return proof is not None and proof.verifier_version == version

    def _is_labeled(self, proof_id: str) -> bool:
        return self.store.exists(keys.label(RUN, proof_id))

    def _labeled(self) -> int:
        return sum(1 for _ in self.store.list(keys.labels(RUN)))

    def _wait(self, is_so: Callable[[], bool], what: str) -> None:
        """Wait for a condition. Raises RuntimeError with the end of the log."""
        deadline = time.monotonic() + self.plan.limit_s
        print(f"{len(self.posed)} proofs posed; now: {what}", file=sys.stderr)
        while not is_so():
            ended = [
                name for name, worker in self.fleet.workers.items() if worker.poll() is not None
            ]
            if ended or time.monotonic() > deadline:
                log = self.fleet.log.read_text()[-2000:]
                raise RuntimeError(
                    f"not within {self.plan.limit_s:.0f} s: {what}; ended: {ended}; {log}"
                )
            time.sleep(0.3)

    def _result(self, seconds: float) -> Result:
        """Read all records of the run."""
        proofs = [
            get_record(self.store, keys.proof(RUN, proof_id), Proof) for proof_id in self.posed
        ]
        found = {proof.id: self._critiques(proof) for proof in proofs}
        metas = [meta for proof in proofs for meta in self._meta_critiques(proof)]
        others = [proof.provenance.model_version for proof in proofs]
        others += [meta.provenance.model_version for meta in metas]
        verdicts = [proof.verdict for proof in proofs] + [meta.verdict for meta in metas]
        verdicts += [critique.verdict for critiques in found.values() for critique in critiques]
        asked = [proof for proof in proofs if proof.verdict.outcome == "valid"]
        versions = {
            name: [one.provenance.model_version for one in critiques]
            for name, critiques in found.items()
        }
        return Result(
            proofs=len(proofs),
            critiques=sum(map(len, found.values())),
            critiques_by_version=dict(
                Counter(version for each in versions.values() for version in each)
            ),
            failed=sum(verdict.outcome == "engine_failed" for verdict in verdicts)
            + sum(1 for _ in self.letters.letters()),
            lost=len(self.posed)
            - self._labeled()
            + sum(CRITIQUES - len(found[proof.id]) for proof in asked),
            mixed=sum(
                set(versions[proof.id]) - {proof.verifier_version} != set() for proof in proofs
            ),
            others=sum(version != BASE for version in others),
            served=[line.version for line in served_log(self.store, RUN, "verifier")],
            in_flight_at_change=self.waiting,
            drain_s=self.drains,
            seconds=round(seconds, 1),
        )

    def _critiques(self, proof: Proof) -> list[Critique]:
        return [
            get_record(self.store, key, Critique)
            for key in self.store.list(keys.critiques(RUN, proof.id))
        ]

    def _meta_critiques(self, proof: Proof) -> list[MetaCritique]:
        listed = self.store.list(f"runs/{RUN}/proofs/{proof.id}/meta_critiques/")
        return [get_record(self.store, key, MetaCritique) for key in listed]


if __name__ == "__main__":
    main()
