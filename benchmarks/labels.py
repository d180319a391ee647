"""Measures the cost of labels with `stop_early = true`, compared with all critiques of every proof.

96 proofs with n = 16, m = 5, k = 3 on the simulated engine with 16, 64 and 256 slots, in one
process; medians of three seeds. `by need` is `stop_early = true`, `all` is `stop_early = false`. A
call counts when it waits for a slot, even if it is cancelled later. Judgements of the generator's
own critique (always m) do not count. The last line is JSON, for each number of slots. The share
`one_at_a_time` is a lower bound for any rule: each critique waits for the judgement of the previous
one, and an unreadable one is requested once more. `--small`: 24 proofs, 64 slots, one seed.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from proofloop.api.drive import drive_on_services
from proofloop.config.run_file import RunSpec, parse_runspec
from proofloop.method.label_rule import decide
from proofloop.pipeline.embedded import EmbeddedPipeline
from proofloop.runs.create import create_run
from proofloop.runs.labels import labels_of
from proofloop.schema import keys
from proofloop.schema.records import PIPELINE_ROLES, Judgement
from proofloop.store import LocalStore, get_record
from proofloop.worker.engine_pool import Engines

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.integration.installation import installed
from tests.integration.processes import folder
from tests.integration.servers import running_rabbitmq

PROOFS_PER_PROBLEM = 4
N, M, K = 16, 5, 3
LATENCY_S = {16: 0.25, 64: 0.8, 256: 2.4}
"""The median latency of a call, by slots: so long that the client's own time does not count."""


@dataclass(frozen=True)
class Setting:
    proofs: int
    slots: int
    seed: int
    good_share: float
    half_share: float
    on_services: bool


@dataclass(frozen=True)
class Cost:
    """One run: calls by kind, seconds from the first proof to the last label, and the labels."""

    verifications: int
    judgements: int
    seconds: float
    labels: dict[str, tuple[str, str, float | None]]
    one_at_a_time: int


def spec_of(setting: Setting, call_log: Path, early: bool) -> RunSpec:
    slots = setting.slots
    fields = {
        "name": "labels",
        "seed": setting.seed,
        "prompts": "nano",
        "problems": {
            "domain": "nano",
            "count": setting.proofs // PROOFS_PER_PROBLEM,
            "proofs_per_problem": PROOFS_PER_PROBLEM,
        },
        "engine": {
            "kind": "simulated",
            "settings": {
                "seed": setting.seed,
                "good_share": setting.good_share,
                "half_share": setting.half_share,
                "latency_s": LATENCY_S[slots],
                "latency_sigma": 0.9,
                "max_concurrency": slots,
                "malformed_share": 0.05,
                "call_log": str(call_log),
            },
        },
        "labeling": {"n": N, "m": M, "k": K, "stop_early": early},
        "flow": {"generator": slots, "verifier": 4 * slots, "meta_verifier": 2 * slots},
    }
    return parse_runspec(fields, "the benchmark")


def run_here(spec: RunSpec, store: LocalStore) -> None:
    """All roles in this process."""
    create_run(store, spec, resume=False)
    engines = Engines(store, store.root)
    with EmbeddedPipeline(store, engines, spec) as pipeline:
        pipeline.run()
    engines.close()


def run_on_services(spec: RunSpec, store: LocalStore) -> None:
    drive_on_services(store, spec, threading.Event(), lambda progress: None, resume=False)


@contextmanager
def services(place: Path, slots: int) -> Iterator[None]:
    """A broker and a service for each role. Each has slots of its own."""
    broker = os.environ.get("PROOFLOOP_TEST_BROKER")
    with ExitStack() as stack:
        if broker is None:
            broker = stack.enter_context(running_rabbitmq(place)).url
        settings = {"STORE": str(place / "store")}
        one = stack.enter_context(installed(settings, broker, place))
        for role in PIPELINE_ROLES:
            one.start(role, concurrency=4 * slots)
        for role in PIPELINE_ROLES:
            one.wait_ready(role)
        yield


def measure(setting: Setting, *, early: bool) -> Cost:
    """Run once in a folder of its own."""
    with folder("proofloop-labels-") as place, ExitStack() as stack:
        store, call_log = LocalStore(place / "store"), place / "call_log"
        spec = spec_of(setting, call_log, early)
        if setting.on_services:
            stack.enter_context(services(place, setting.slots))
        began = time.perf_counter()
        (run_on_services if setting.on_services else run_here)(spec, store)
        seconds = time.perf_counter() - began
        calls = Counter(calls_in(call_log))
        labels = {
            label.proof_id: (label.outcome, label.kind, label.score)
            for label in labels_of(store, spec.name)
        }
        least = sum(needed_one_at_a_time(store, spec, proof_id) for proof_id in labels)
    return Cost(calls["verifier"], calls["meta_verifier"], seconds, labels, least)


def needed_one_at_a_time(store: LocalStore, spec: RunSpec, proof_id: str) -> int:
    """How many calls decide the label if the critiques come in order, each with its judgement."""
    stored = store.list(keys.judgements(spec.name, proof_id))
    judged = [get_record(store, key, Judgement) for key in stored]
    judged = [judgement for judgement in judged if judgement.index >= 0]
    counts = range(len(judged) + 1)
    needed = next((at for at in counts if decide(judged[:at], n=N, k=K)), len(judged))
    again = (keys.unread_critique(spec.name, proof_id, index) for index in range(needed))
    return needed + sum(map(store.exists, again))


def calls_in(call_log: Path) -> list[str]:
    """The role of every call in the call log, without the judgements of the generator's
    critiques.
    """
    return [
        line.split()[1].partition(":")[0]
        for file in call_log.iterdir()
        for line in file.read_text().splitlines()
        if line.startswith("began ") and ":meta-self-" not in line
    ]


def compare(setting: Setting) -> dict[str, float]:
    """Both ways of asking, for one seed."""
    everything, by_need = measure(setting, early=False), measure(setting, early=True)
    return {
        "verifications_share": by_need.verifications / everything.verifications,
        "one_at_a_time": everything.one_at_a_time / everything.verifications,
        "metas_share": by_need.judgements / everything.judgements,
        "labels_identical": float(by_need.labels == everything.labels),
        "makespan_ratio_to_asking_all": by_need.seconds / everything.seconds,
        "seconds_asking_all": everything.seconds,
    }


def main() -> None:
    """Compare for each number of slots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="under a minute")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds; 3 take half an hour")
    parser.add_argument("--slots", type=int, choices=LATENCY_S, help="only this number of slots")
    parser.add_argument(
        "--services", action="store_true", help="on RabbitMQ, with a service for each role"
    )
    parser.add_argument("--good-share", type=float, default=0.4, help="of the proofs; default: 0.4")
    parser.add_argument(
        "--half-share",
        type=float,
        default=0.5,
        help="of the flawed proofs, those that deserve 0.5; default: 0.5",
    )
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    proofs, seeds = 96, range(asked.seeds)
    all_slots = (asked.slots,) if asked.slots else tuple(LATENCY_S)
    if asked.small:
        proofs, all_slots, seeds = 24, (64,), range(1)
    found: dict[str, dict[str, float]] = {}
    for slots in all_slots:
        rounds = []
        for seed in seeds:
            shares = asked.good_share, asked.half_share
            setting = Setting(proofs, slots, seed, *shares, asked.services)
            rounds.append(compare(setting))
            print(f"{slots} slots, seed {seed}: {rounds[-1]}", file=sys.stderr)
        found[str(slots)] = {
            name: round(statistics.median(each[name] for each in rounds), 3) for name in rounds[0]
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
