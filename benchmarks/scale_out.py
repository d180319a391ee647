"""How the verifier stage scales with its processes, on a real broker and store.

The engine is simulated, with latencies of a real model's answers: 12 s in the median, some five
times as long. 1, 2, then 4 verifier processes with the same number of slots each meet a queue of
critiques that fills them six times. The throughput is that of the critiques between the first and
the last tenth, by the times at which the store has written them. The last line is JSON:
`critiques_per_second` by processes, and `linear`: the throughput over that of one process times
their number.

`--small`: 1 and 2 processes with short calls, less than a minute.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.load import create_load, critiques
from tests.integration.fleet import Fleet, installation
from tests.integration.processes import folder
from tests.integration.servers import S3, Broker, client_of, own_servers
from tests.waiting import wait_until

from proofloop.bus.dead_letters import DeadLetters
from proofloop.bus.rabbitmq import RabbitBus
from proofloop.schema import keys

NAME, CRITIQUES_PER_PROOF = "scale-out", 16


@dataclass(frozen=True)
class Plan:
    """`slots`: calls of a process at the same time; `rounds`: how often its queue fills them."""

    processes: tuple[int, ...] = (1, 2, 4)
    slots: int = 16
    rounds: int = 6
    latency_s: float = 12.0
    limit_s: float = 900.0


SMALL = Plan(processes=(1, 2), rounds=4, latency_s=2.0, limit_s=120.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="less than a minute")
    plan = SMALL if parser.parse_args().small else Plan()
    with folder("proofloop-scale-out-") as place, own_servers() as (broker, s3):
        found = {count: throughput(plan, count, broker, s3, place) for count in plan.processes}
    one = found[plan.processes[0]]
    linear = {count: round(each / (count * one), 3) for count, each in found.items()}
    figures = {count: round(each, 3) for count, each in found.items()}
    print(json.dumps({"critiques_per_second": figures, "linear": linear}))


def throughput(plan: Plan, processes: int, broker: Broker, s3: S3, place: Path) -> float:
    """Critiques a second of that many verifiers whose slots are full."""
    labeling = {"n": CRITIQUES_PER_PROOF, "stop_early": False}
    engine = {"latency_s": plan.latency_s, "latency_sigma": 0.5, "max_concurrency": plan.slots}
    with installation(broker, s3, place) as (fleet, store, letters):
        count = processes * plan.slots * plan.rounds // CRITIQUES_PER_PROOF
        proofs = create_load(store, NAME, count, labeling, engine)
        for replica in range(processes):
            fleet.start("verifier", replica, "--concurrency", str(plan.slots))
        wait_until(lambda: consumers(letters) == processes, plan.limit_s)
        bus = RabbitBus(broker.url, namespace=fleet.namespace, roles=["verifier", "meta_verifier"])
        bus.publish(list(critiques(NAME, proofs, CRITIQUES_PER_PROOF)))
        bus.close()
        wanted = count * CRITIQUES_PER_PROOF
        times = stored_when_all_are_there(plan, s3, fleet, wanted)
    tenth = wanted // 10
    rate = (wanted - 2 * tenth) / (times[-tenth - 1] - times[tenth])
    print(f"{processes} verifiers: {rate:.2f} critiques a second", file=sys.stderr)
    return rate


def consumers(letters: DeadLetters) -> int:
    return sum(depth.consumers for depth in letters.depths() if depth.role == "verifier")


def stored_when_all_are_there(plan: Plan, s3: S3, fleet: Fleet, wanted: int) -> list[float]:
    """The Unix times in seconds at which the critiques were written, in order."""
    bucket, prefix = (fleet.environment[f"PROOFLOOP_S3_{name}"] for name in ("BUCKET", "PREFIX"))
    deadline = time.monotonic() + plan.limit_s
    while True:
        listed = client_of(s3).list_objects(bucket, f"{prefix}/{keys.proofs(NAME)}", recursive=True)
        times = [each.last_modified.timestamp() for each in listed if is_critique(each.object_name)]
        if len(times) >= wanted:
            return sorted(times)
        if time.monotonic() > deadline:
            raise RuntimeError(
                f"{len(times)} of {wanted} critiques: {fleet.log.read_text()[-2000:]}"
            )
        time.sleep(2.0)


def is_critique(name: str) -> bool:
    return "/critiques/" in name


if __name__ == "__main__":
    main()
