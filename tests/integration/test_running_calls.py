"""Connections are cut, and a run is killed and resumed, while long calls run, on a real broker and
a real store: no call is paid twice.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from proofloop.bus import open_bus
from proofloop.config.settings import load_settings
from proofloop.runs.create import create_run
from proofloop.schema import keys
from proofloop.schema.events import ProofWritten
from proofloop.schema.records import PIPELINE_ROLES, Problem
from proofloop.store import Store, open_store, put_record
from tests.builders import RUN, proof, runspec
from tests.integration.installation import Installation
from tests.integration.run_files import simulated_run
from tests.integration.servers import Broker, cut_connections
from tests.waiting import wait_until

CRITIQUES = 16
CALL_S = 15.0
LEASE_S = 60.0
"""How long a message of another worker's call may be put off."""


@pytest.mark.slow
def test_no_call_is_paid_twice_when_all_workers_lose_their_connections(
    installation: Installation, broker: Broker, tmp_path: Path
) -> None:
    call_log, store = tmp_path / "call_log", open_store(load_settings())
    pose(store, call_log)
    installation.environment["PROOFLOOP_LOG_LEVEL"] = "info"
    for _ in range(2):
        # Both have free threads for what comes again.
        installation.start("verifier", concurrency=CRITIQUES)
        installation.wait_ready("verifier")
    publish()
    assert wait_until(lambda: sum(asked(call_log).values()) == CRITIQUES, 30), (
        installation.letters.depths()
    )
    assert len(list(call_log.iterdir())) == 2, "one worker took all of it"
    cut_connections(broker)
    assert wait_until(lambda: count_critiques(store) == CRITIQUES, CALL_S + LEASE_S), (
        installation.log()
    )
    assert wait_until(lambda: not unsettled(installation, "verifier"), LEASE_S + 20), (
        installation.letters.depths()
    )
    log = (installation.folder / "log.txt").read_text()
    assert log.count("broker_lost") >= 4, "each worker has two connections"
    assert "call_joined" in log or "waits for this answer" in log, (
        "nothing was redelivered while its call ran"
    )
    assert set(asked(call_log).values()) == {1}, asked(call_log)
    assert not list(installation.letters.letters())


@pytest.mark.slow
def test_a_resumed_run_pays_no_call_twice(installation: Installation, tmp_path: Path) -> None:
    call_log, run = tmp_path / "call_log", tmp_path / "run.toml"
    calls = f'latency_s = 3, latency_sigma = 0, call_log = "{call_log}"'
    flow = "max_waiting_proofs = 6"
    run.write_text(simulated_run("again", count=9, proofs_per_problem=1, settings=calls, flow=flow))
    for role in ("generator", "generator", "verifier", "verifier", "meta_verifier", "labeler"):
        installation.start(role)
        installation.wait_ready(role)
    posing = installation.call("run", str(run))
    assert wait_until(lambda: sum(asked(call_log).values()) == 6, 60), installation.log()
    posing.kill()
    assert installation.call("run", str(run), "--resume").wait(180) == 0, installation.log()
    assert wait_until(lambda: not unsettled(installation, *PIPELINE_ROLES), 30), (
        installation.letters.depths()
    )
    assert len(asked(call_log)) > 9 * 3
    assert set(asked(call_log).values()) == {1}, asked(call_log)


def pose(store: Store, call_log: Path) -> None:
    """A run with one proof, whose critiques take a while."""
    calls = {"latency_s": CALL_S, "latency_sigma": 0, "call_log": str(call_log)}
    create_run(store, runspec(engine={"kind": "simulated", "settings": calls}), resume=False)
    put_record(store, keys.problem(RUN, "p1"), Problem(id="p1", question="Prove it."))
    put_record(store, keys.proof(RUN, proof().id), proof())


def publish() -> None:
    bus = open_bus(load_settings())
    about = {"run_id": RUN, "proof_id": proof().id, "verifier_version": "v-1"}
    bus.publish([ProofWritten(**about, index=index) for index in range(CRITIQUES)])
    bus.close(grace_s=5)


def asked(call_log: Path) -> Counter[str]:
    """How often each question was put to an engine."""
    lines = [line.split() for page in call_log.glob("*") for line in page.read_text().splitlines()]
    return Counter(request.rpartition(":")[0] for what, request, _ in lines if what == "began")


def count_critiques(store: Store) -> int:
    return sum(1 for _ in store.list(keys.critiques(RUN, proof().id)))


def unsettled(installation: Installation, *roles: str) -> int:
    """What still waits in the queues of these roles."""
    depths = [depth for depth in installation.letters.depths() if depth.role in roles]
    return sum(depth.ready + depth.later for depth in depths)
