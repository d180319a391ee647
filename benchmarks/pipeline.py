"""Measures the pipeline's own cost, with a simulated engine that answers at once.

The last line of stdout is JSON: `events_per_second` and `cpu_us_per_event` (processor time) of the
larger run, and the peak resident memory of a run with 1,000 and of one with 100,000 proofs (each in
a separate process), which must not differ. `--small`: 200 and 2,000 proofs.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from proofloop.config.run_file import RunSpec, parse_runspec
from proofloop.pipeline.embedded import EmbeddedPipeline
from proofloop.runs.create import create_run
from proofloop.store import LocalStore
from proofloop.worker.engine_pool import Engines

PROOFS_PER_PROBLEM = 4


def benchmark_spec(proofs: int) -> RunSpec:
    """A run of this many proofs, with 4 critiques each and up to 3 meta-critiques for each
    issue.
    """
    return parse_runspec(
        {
            "name": "pipeline",
            "prompts": "nano",
            "problems": {
                "domain": "nano",
                "count": proofs // PROOFS_PER_PROBLEM,
                "proofs_per_problem": PROOFS_PER_PROBLEM,
            },
            "engine": {"kind": "simulated"},
            "labeling": {"n": 4, "m": 3, "k": 2},
            "flow": {"generator": 1, "verifier": 1, "meta_verifier": 1, "labeler": 1},
        },
        "the benchmark",
    )


def run(proofs: int) -> dict[str, float]:
    """Run once; returns events per second, processor time per event, and the peak memory of this
    process.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(Path(folder))
        spec = create_run(store, benchmark_spec(proofs), resume=False)
        engines = Engines(store, Path(folder))
        began, cpu_began = time.perf_counter(), time.process_time()
        with EmbeddedPipeline(store, engines, spec) as pipeline:
            progress = pipeline.run()
            seconds, cpu = time.perf_counter() - began, time.process_time() - cpu_began
            metrics = pipeline.tools.metrics
            events = metrics.total(metrics.messages, outcome="acked")
        engines.close()
        memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # before the clean-up
    assert progress.labeled == proofs
    return {
        "events_per_second": events / seconds,
        "cpu_us_per_event": 1e6 * cpu / events,
        "memory_mb": memory_mb,
    }


def run_in_process(proofs: int) -> dict[str, float]:
    """Run in a separate process, so that the peak memory is that of this run."""
    print(f"running {proofs} proofs", file=sys.stderr)
    done = subprocess.run(
        [sys.executable, __file__, "--proofs", str(proofs)], check=True, stdout=subprocess.PIPE
    )
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    """Run both sizes, or only the one given by --proofs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="under a minute")
    parser.add_argument("--proofs", type=int, help="one run with this many proofs in this process")
    asked = parser.parse_args()
    if asked.proofs:
        print(json.dumps(run(asked.proofs)))
        return
    few, many = (200, 2_000) if asked.small else (1_000, 100_000)
    small, large = run_in_process(few), run_in_process(many)
    names = (
        ("memory_mb_1k_proofs", "memory_mb_100k_proofs")
        if not asked.small
        else ("memory_mb_200_proofs", "memory_mb_2k_proofs")
    )
    figures = {
        "events_per_second": large["events_per_second"],
        "cpu_us_per_event": large["cpu_us_per_event"],
        names[0]: small["memory_mb"],
        names[1]: large["memory_mb"],
    }
    print(json.dumps({name: round(value, 1) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
