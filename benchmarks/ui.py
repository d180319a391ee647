"""Measures `proofloop ui` on a large store: 100 problems with 256 labeled proofs each, 64 critiques
for every proof of two problems, and a search's tree in one of them.

The records are written straight into a local store. The server is a real process with an empty
index. `first_page_s`: the first answer of the run's page, while labels are still read. `filled_s`:
until all labels are in the index. Pages: medians in seconds afterwards. `memory_mb`: of the server
after 50 pages and after all. The last line is JSON. `--small`: 10 problems with 32 proofs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from proofloop.config.run_file import parse_runspec
from proofloop.runs.create import create_run
from proofloop.schema import keys
from proofloop.schema.ids import proof_id
from proofloop.schema.records import (
    Critique,
    Judgement,
    Label,
    Problem,
    Proof,
    Provenance,
    RawAnswer,
    Record,
    Sampling,
    Verdict,
)
from proofloop.store import LocalStore, put_record

RUN = "large"
MADE = Provenance(
    model_version="prover-1",
    prompt_digest="0123456789ab",
    seed=7,
    sampling=Sampling(),
    prompt_tokens=900,
    completion_tokens=12_000,
    engine_seconds=180.0,
)
PARAGRAPH = (
    "**Step {step}.** Let $a_{step}$ be a root of $x^2 - {step}x + 1 = 0$. By the inequality of"
    " Cauchy and Schwarz, $$\\sum_{{k=1}}^{{{step}}} a_k b_k \\le \\sqrt{{\\sum a_k^2}}"
    " \\sqrt{{\\sum b_k^2}},$$ hence $a_{step} \\equiv {number} \\pmod{{{step}}}$ and the claim"
    " follows for all $n \\ge {step}$.\n\n"
)
CRITIQUE = (
    'In Step {step} the proof claims "the claim follows for all $n \\ge {step}$", but the case'
    " $n = {step}$ is not shown. The bound itself is right.\n\n" * 6
)


def records(problems: int, proofs: int, critiques: int) -> Iterator[tuple[str, Record]]:
    for number in range(problems):
        name = f"p{number}"
        question = f"Prove that $x^{{{number + 2}}} + y^2 = z^3$ has infinitely many solutions."
        yield keys.problem(RUN, name), Problem(id=name, question=question)
        for place in range(proofs):
            yield from of_proof(number, place, critiques if number < 2 else 0)


def of_proof(number: int, place: int, critiques: int) -> Iterator[tuple[str, Record]]:
    problem, name = f"p{number}", proof_id(f"p{number}", place)
    score = (0.0, 0.5, 1.0, 0.0)[(number + place) % 4]
    about = {"run_id": RUN, "problem_id": problem, "group": problem}
    parents = (proof_id(problem, place // 4 - 1),) if number == 0 and place >= 64 else ()
    yield (
        keys.proof(RUN, name),
        Proof(
            id=name,
            solution="".join(PARAGRAPH.format(step=s, number=place) for s in range(2, 12)),
            self_analysis="Every step holds.",
            verdict=Verdict(outcome="valid", score=score),
            provenance=MADE,
            verifier_version="verifier-1",
            parents=parents,
            **about,
        ),
    )
    for index in range(critiques):
        verdict = Verdict(outcome="valid", score=(0.0, 0.5, 1.0)[index % 3])
        text = CRITIQUE.format(step=2 + index % 10)
        yield (
            keys.critique(RUN, name, index),
            Critique(
                proof_id=name,
                index=index,
                analysis=text,
                verdict=verdict,
                provenance=MADE,
                raw=RawAnswer(text=None),
            ),
        )
        yield (
            keys.judgement(RUN, name, index),
            Judgement(
                proof_id=name, index=index, verdict=verdict, confirmed=index % 2 == 0, quality=0.5
            ),
        )
    yield (
        keys.label(RUN, name),
        Label(
            proof_id=name,
            outcome="accepted" if score == 1.0 else "rejected",
            kind="accepted" if score == 1.0 else "rejected_upheld",
            score=score,
            self_quality=1.0,
            critiques=(0, 6) if critiques and score < 1 else (),
            trigger=critiques - 1 if critiques else 0,
            **about,
        ),
    )


def make_store(folder: Path, problems: int, proofs: int, critiques: int) -> LocalStore:
    store = LocalStore(folder)
    fields = {
        "name": RUN,
        "problems": {"domain": "nano", "count": problems, "proofs_per_problem": proofs},
        "prompts": "math",
        "engine": {"kind": "simulated"},
        "models": dict.fromkeys(("generator", "verifier", "meta_verifier"), "m"),
        "labeling": {"n": critiques},
        "prices": {"per_million_completion_tokens": 2.0},
    }
    create_run(store, parse_runspec(fields, "the benchmark"), resume=False)
    for key, record in records(problems, proofs, critiques):
        put_record(store, key, record)
    return store


def measure(store: Path, cache: Path, rounds: int) -> dict[str, float]:
    environment = {**os.environ, "PROOFLOOP_CACHE": str(cache)}
    proofloop = Path(sys.executable).with_name("proofloop")
    command = [proofloop, "ui", "--port", "0", "--store", str(store)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        ready = json.loads(server.stdout.readline())
        try:
            with httpx.Client(base_url=ready["url"], timeout=120) as browser:
                return visit(browser, server.pid, rounds)
        finally:
            server.send_signal(signal.SIGTERM)


def visit(browser: httpx.Client, pid: int, rounds: int) -> dict[str, float]:
    begin_s = time.perf_counter()
    found = {"first_page_s": seconds(browser, f"/runs/{RUN}")}
    while "Reading labels" in browser.get(f"/runs/{RUN}").text:
        time.sleep(0.2)
    found["filled_s"] = time.perf_counter() - begin_s
    pages = {
        "runs": "/",
        "run": f"/runs/{RUN}",
        "sorted": f"/runs/{RUN}?sort=-accepted&search=x",
        "problem": f"/runs/{RUN}/problems/p0",
        "proof": f"/runs/{RUN}/proofs/p0-002",
        "critique": f"/runs/{RUN}/proofs/p0-002/critique-5",
        "compare": f"/compare?a={RUN}&b={RUN}",
    }
    times: dict[str, list[float]] = {name: [] for name in pages}
    for number in range(rounds):
        for name, page in pages.items():
            times[name].append(seconds(browser, page))
        if number == 50 // len(pages):
            found["memory_mb_50_pages"] = memory_mb(pid)
    found |= {f"{name}_s": statistics.median(each) for name, each in times.items()}
    found |= {f"{name}_max_s": max(each) for name, each in times.items()}
    return {**found, "memory_mb": memory_mb(pid), "pages": rounds * len(pages)}


def seconds(browser: httpx.Client, page: str) -> float:
    begin_s = time.perf_counter()
    browser.get(page).raise_for_status()
    return time.perf_counter() - begin_s


def memory_mb(pid: int) -> float:
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return int(fields["VmRSS"].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--store", type=Path, help="make the store here and keep it")
    arguments = parser.parse_args()
    size = (10, 32, 8) if arguments.small else (100, 256, 64)
    with tempfile.TemporaryDirectory() as folder:
        store = arguments.store or Path(folder) / "store"
        begin_s = time.perf_counter()
        if not store.exists():
            make_store(store, *size)
        made_s = time.perf_counter() - begin_s
        found = measure(store, Path(folder) / "cache", rounds=5 if arguments.small else 15)
        print(json.dumps({"made_s": made_s, **found}))  # the removal of the store takes a while


if __name__ == "__main__":
    main()
