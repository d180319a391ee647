"""Measures searches by need (`stop_early = true`, the default) beside all critiques of every proof.

Six problems with 8 first proofs, keep = 8, two rounds, n = 16, m = 5, k = 3, without `[flow]`: 16
and 64 slots with 2 analyses, 256 slots with 8. The server is a process of its own. Its answers
follow from prompt and seed, its latencies are log-normal. `makespan_ratio_to_bound` divides the
seconds of the run by the longer of two bounds: the seconds of all its calls by the slots, and the
longest chain of calls that must follow each other. The shares are of the calls of a run with
`stop_early = false`, without latency. `searches_identical` is the share of problems with the same
rounds and best proofs; of a solved problem the last round does not count, because the first proof
that passes is a matter of time. Medians of three seeds. The last line is JSON, for each number of
slots. `--small`: 16 slots, three smaller problems, one seed.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from proofloop.config.run_file import RunSpec, parse_runspec
from proofloop.pipeline.embedded import EmbeddedPipeline
from proofloop.runs.create import create_run
from proofloop.runs.search.records import SearchRound, searches_of
from proofloop.schema import keys
from proofloop.schema.ids import problem_of, proof_id
from proofloop.schema.records import Provenance, Record
from proofloop.store import LocalStore, get_record
from proofloop.worker.engine_pool import Engines

LATENCY_S = {16: 1.0, 64: 2.4, 256: 6.0}
"""The median latency of a proof, by slots: so long that the client's own time does not count."""

ANALYSES = {16: 2, 64: 2, 256: 8}


@dataclass(frozen=True)
class Size:
    slots: int
    latency_s: float
    analyses: int
    problems: int = 6
    proofs: int = 8
    rounds: int = 2
    n: int = 16
    overlap: bool = False


SMALL = Size(slots=16, latency_s=0.5, analyses=2, problems=3, proofs=4, n=8)


@dataclass(frozen=True)
class Outcome:
    """One run: its seconds and their lower bound, the begun calls by role, and its searches."""

    seconds: float
    bound_s: float
    begun: Mapping[str, int]
    searches: Mapping[str, object]


class _Answer(Record):
    """Reads an answer without its texts."""

    provenance: Provenance


# -- a run


def spec_of(size: Size, seed: int, url: str, *, early: bool) -> RunSpec:
    roles = ("generator", "verifier", "meta_verifier")
    fields = {
        "name": "search",
        "seed": seed,
        "prompts": "nano",
        "problems": {"domain": "nano", "count": size.problems, "proofs_per_problem": size.proofs},
        "engine": {
            "kind": "openai",
            "settings": {"base_url": url, "max_concurrency": size.slots, "stream": "never"},
        },
        "models": {role: role for role in roles},
        "labeling": {"n": size.n, "m": 5, "k": 3, "stop_early": early},
        "search": {
            "rounds": size.rounds,
            "keep": size.proofs,
            "analyses": size.analyses,
            "overlap": size.overlap,
        },
    }
    return parse_runspec(fields, "the benchmark")


def measure(size: Size, seed: int, *, early: bool) -> Outcome:
    """Run once in a folder of its own, on a server of its own."""
    settings = {
        "seed": seed,
        "latency_s": size.latency_s if early else 0.0,
        "latency_sigma": 0.9,
        "max_concurrency": size.slots,
        "malformed_share": 0.05,
        "verifier_noise": 0.3,
    }
    with tempfile.TemporaryDirectory() as folder, served(settings) as address:
        store = LocalStore(Path(folder) / "store")
        spec = spec_of(size, seed, f"{address}/v1", early=early)
        create_run(store, spec, resume=False)
        engines = Engines(store, Path(folder))
        began_s = time.perf_counter()
        with EmbeddedPipeline(store, engines, spec) as pipeline:
            pipeline.run()
            seconds = time.perf_counter() - began_s
        engines.close()
        with urllib.request.urlopen(f"{address}/work", timeout=60) as reply:
            work = json.load(reply)
        bound_s = max(work["busy_s"] / size.slots, longest_chain_s(store, spec))
        return Outcome(seconds, bound_s, work["begun"], searches(store, spec))


@contextmanager
def served(settings: dict[str, Any]) -> Iterator[str]:
    """The address of a new server in a process of its own."""
    script = str(Path(__file__).with_name("search_server.py"))
    command = [sys.executable, script, json.dumps(settings)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.wait()


# -- the searches


def searches(store: LocalStore, spec: RunSpec) -> dict[str, object]:
    """The rounds of each problem, and how its search ended."""
    return {
        each.problem_id: (
            [each.parents for each in rounds_of(store, spec, each.problem_id)],
            each.best_by_round[:-1] if each.solved else each.best_by_round,
            each.solved,
            each.score,
        )
        for each in searches_of(store, spec.name)
    }


def rounds_of(store: LocalStore, spec: RunSpec, problem_id: str) -> list[SearchRound]:
    prefix = f"{keys.rounds(spec.name)}{problem_id}/"
    return [get_record(store, key, SearchRound) for key in store.list(prefix)]


def longest_chain_s(store: LocalStore, spec: RunSpec) -> float:
    """The longest chain of calls of a problem: in each round from a proof to its last judgement."""
    chains = chains_of_proofs(store, spec)
    found = []
    for problem_id in {problem_of(name) for name in chains}:
        first = spec.problems.proofs_per_problem
        rounds = [range(first)]
        rounds += [
            range(each.first, each.first + len(each.parents))
            for each in rounds_of(store, spec, problem_id)
        ]
        names = [[proof_id(problem_id, number) for number in each] for each in rounds]
        found.append(sum(max(chains.get(name, 0.0) for name in each) for each in names))
    return max(found)


def chains_of_proofs(store: LocalStore, spec: RunSpec) -> dict[str, float]:
    """For each proof the seconds of the proof, its slowest critique, and its slowest judgement,
    which waits for all critiques of its proof. An unreadable critique goes before the one in its
    place, and the first judgements of a critique before those that break a tie.
    """
    seconds: dict[str, Counter[tuple[str, int]]] = defaultdict(Counter)
    majority = spec.labeling.m // 2 + 1
    for key in store.list(keys.proofs(spec.name)):
        answer = keys.parse_answer(key)
        if answer is None:
            continue
        name, found = answer.name, seconds[answer.proof_id]
        step = name.kind, name.index
        if name.kind == "meta" and name.number >= majority:
            step = "tie", name.index
        spent_s = get_record(store, key, _Answer).provenance.engine_seconds
        found[step] = max(found[step], spent_s)
    return {name: longest(found, spec.labeling.n) for name, found in seconds.items()}


def longest(seconds: Counter[tuple[str, int]], n: int) -> float:
    """Proof, critique and judgement, one after the other; zero where there was no call."""

    def slowest(first: str, second: str) -> float:
        return max(seconds[first, index] + seconds[second, index] for index in range(n))

    proof_s = max((spent for (kind, _), spent in seconds.items() if kind == "proof"), default=0.0)
    return proof_s + slowest("unread", "critique") + slowest("meta", "tie")


# -- all rounds


def compare(size: Size, seed: int) -> dict[str, float]:
    """Both ways of asking, for one seed."""
    everything = measure(size, seed, early=False)
    by_need = measure(size, seed, early=True)
    same = [by_need.searches[each] == found for each, found in everything.searches.items()]
    return {
        "makespan_ratio_to_bound": by_need.seconds / by_need.bound_s,
        "searches_identical": statistics.fmean(same),
        "verifications_share": by_need.begun["verifier"] / everything.begun["verifier"],
        "metas_share": by_need.begun["meta_verifier"] / everything.begun["meta_verifier"],
        "verifications": by_need.begun["verifier"],
        "proofs": by_need.begun["generator"],
        "seconds": by_need.seconds,
    }


def main() -> None:
    """Compare for each number of slots."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="under a minute")
    parser.add_argument("--slots", type=int, choices=LATENCY_S, help="only this number of slots")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds; 3 take 45 minutes")
    asked = parser.parse_args()
    chosen = (asked.slots,) if asked.slots else tuple(LATENCY_S)
    sizes = [Size(slots, LATENCY_S[slots], ANALYSES[slots]) for slots in chosen]
    if asked.small:
        sizes, asked.seeds = [SMALL], 1
    found: dict[str, dict[str, float]] = {}
    for size in sizes:
        rounds = []
        for seed in range(asked.seeds):
            rounds.append(compare(size, seed))
            print(f"{size.slots} slots, seed {seed}: {rounds[-1]}", file=sys.stderr)
        found[str(size.slots)] = {
            name: round(statistics.median(each[name] for each in rounds), 3) for name in rounds[0]
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
