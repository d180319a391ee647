"""Messages that can never work, on a real broker: each ends in the dead letters with its reason,
the others flow on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from proofloop.bus import DELIVERY_LIMIT, DeadLetter, open_bus
from proofloop.bus.topology import Topology
from proofloop.config.settings import load_settings
from proofloop.runs.create import create_run
from proofloop.runs.planned import planned
from proofloop.schema import keys
from proofloop.schema.events import MAX_BODY_BYTES, ProofWritten, encode
from proofloop.schema.records import PIPELINE_ROLES, Problem
from proofloop.store import Store, open_store, put_record
from tests.builders import RUN, proof, runspec
from tests.integration.installation import Installation
from tests.integration.servers import publish
from tests.waiting import wait_until

LARGE_BYTES, LARGE_COUNT = 15_000_000, 10  # RabbitMQ 4 takes no more than 16 MiB
MAY_GROW_KB = 100_000
"""glibc keeps twice the largest piece that was freed, 30 MB; a worker that kept the bodies would
grow by 150 MB.
"""


@pytest.mark.slow
def test_a_message_that_crashes_every_worker_is_dead_and_the_others_are_labeled(
    installation: Installation,
) -> None:
    store = open_store(load_settings())
    for role in PIPELINE_ROLES:
        installation.start(role)
    for role in PIPELINE_ROLES:
        installation.wait_ready(role)
    pose(store, "killing", problems=1, latency_s=0.5, latency_sigma=0, crash_share=1.0)
    pose(store, "beside", problems=20, latency_s=0.05)
    codes = restarted_until_dead(installation)
    assert codes == [137] * (DELIVERY_LIMIT + 1)
    assert count_labels(store, "beside") > 0
    [letter] = installation.letters.letters()
    assert json.loads(letter.body)["run_id"] == "killing"
    assert (letter.queue, letter.deliveries) == ("generator", DELIVERY_LIMIT + 1)
    assert "each time its worker died" in letter.reason
    pose(store, "after", problems=2)
    assert wait_until(
        lambda: (count_labels(store, "beside"), count_labels(store, "after")) == (20, 2), 60
    )


def pose(store: Store, run_id: str, *, problems: int, **engine: Any) -> None:
    """Pose a run of one proof a problem, as `proofloop run` does."""
    problem_section = {"domain": "nano", "count": problems, "proofs_per_problem": 1}
    spec = runspec(
        run_id, problems=problem_section, engine={"kind": "simulated", "settings": engine}
    )
    create_run(store, spec, resume=False)
    bus = open_bus(load_settings())
    bus.publish(planned(spec, store))
    bus.close(grace_s=5)


def restarted_until_dead(installation: Installation) -> list[int | None]:
    """Start the generator again each time it ends, until something is dead; the exit codes."""
    codes: list[int | None] = []

    def is_dead() -> bool:
        if (code := installation.services["generator"].poll()) is not None:
            codes.append(code)
            installation.start("generator")
        return count_dead(installation) > 0

    assert wait_until(is_dead, 150), codes
    if len(codes) <= DELIVERY_LIMIT:  # the broker may know of the last death before we do
        codes.append(installation.services["generator"].wait(60))
        installation.start("generator")
    return codes


def count_labels(store: Store, run_id: str) -> int:
    return sum(1 for _ in store.list(keys.labels(run_id)))


def test_a_message_that_can_never_work_is_dead_with_its_reason(
    installation: Installation, tmp_path: Path
) -> None:
    store = stored_run()
    for name in ("gone", "good", "newer"):
        put_record(store, keys.proof(RUN, name), proof(id=name))
    store.put_if_absent(keys.proof(RUN, "corrupt"), b'{"id": "corrupt", "solution": 7}')
    newer = json.loads(encode(written("newer"))) | {"priority": "high", "hints": [{"lemma": 3}]}
    unknown = b'{"event":"ProofFormalised","run_id":"r1","proof_id":"good"}'
    bodies = [
        encode(written("gone")),
        encode(written("corrupt")),
        unknown,
        json.dumps(newer).encode(),
    ]
    for body in [*bodies, encode(written("good"))]:
        send(installation, body)
    store.delete_prefix(f"{keys.proofs(RUN)}gone/")
    installation.start("verifier")
    assert wait_until(lambda: len(list(installation.letters.letters())) == 3, 60), (
        installation.log()
    )
    assert wait_until(lambda: has_critique(store, "good") and has_critique(store, "newer"), 60)
    found = {about(letter): letter for letter in installation.letters.letters()}
    assert {name: letter.deliveries for name, letter in found.items()} == {
        "gone": DELIVERY_LIMIT,
        "corrupt": DELIVERY_LIMIT,
        "ProofFormalised": 1,
    }
    assert (
        f"the store lacks what the message names: {keys.proof(RUN, 'gone')}" in found["gone"].reason
    )
    assert f"{keys.proof(RUN, 'corrupt')} is not a valid Proof" in found["corrupt"].reason
    assert "unknown event 'ProofFormalised'" in found["ProofFormalised"].reason


def test_huge_bodies_are_dead_cut_short_and_leave_their_worker_small(
    installation: Installation,
) -> None:
    store = stored_run()
    names = [f"good-{number}" for number in range(4)]
    for name in names:
        put_record(store, keys.proof(RUN, name), proof(id=name))
    installation.start("verifier")
    installation.wait_ready("verifier")
    send(installation, encode(written(names[0])))
    assert wait_until(lambda: has_critique(store, names[0]), 60)
    before_kb = resident_kb(installation)
    for number in range(LARGE_COUNT):
        send(installation, b"x" * LARGE_BYTES)
        assert wait_until(lambda sent=number + 1: count_dead(installation) == sent, 60)  # type: ignore[misc]
    for name in names[1:]:
        send(installation, encode(written(name)))
    assert wait_until(lambda: all(has_critique(store, name) for name in names), 60)
    for letter in installation.letters.letters():
        assert (letter.body, letter.deliveries) == (b"x" * MAX_BODY_BYTES, 1)
        assert f"{LARGE_BYTES} bytes" in letter.reason
    print(f"the worker had {before_kb} kB before, and has {resident_kb(installation)} kB")
    assert wait_until(lambda: resident_kb(installation) < before_kb + MAY_GROW_KB, 30)


def count_dead(installation: Installation) -> int:
    return sum(depth.dead for depth in installation.letters.depths())


def stored_run() -> Store:
    """A store that holds a run with one problem and no proofs."""
    store = open_store(load_settings())
    create_run(store, runspec(), resume=False)
    put_record(store, keys.problem(RUN, "p1"), Problem(id="p1", question="Prove it."))
    open_bus(load_settings()).close(grace_s=5)  # makes the queues
    return store


def written(proof_id: str) -> ProofWritten:
    return ProofWritten(run_id=RUN, proof_id=proof_id, index=0, verifier_version="v-1")


def send(installation: Installation, body: bytes) -> None:
    """Put a message straight into the verifier's queue."""
    queue = Topology(installation.environment["PROOFLOOP_NAMESPACE"]).queue("verifier").name
    publish(installation.environment["PROOFLOOP_BROKER"], queue, body)


def has_critique(store: Store, proof_id: str) -> bool:
    return store.exists(keys.critique(RUN, proof_id, 0))


def about(letter: DeadLetter) -> str:
    """The proof that a dead letter is about, or the unknown event."""
    fields = json.loads(letter.body)
    return str(fields["event"] if fields["event"] != "ProofWritten" else fields["proof_id"])


def resident_kb(installation: Installation) -> int:
    status = Path(f"/proc/{installation.services['verifier'].pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1])
