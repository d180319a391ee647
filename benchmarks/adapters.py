"""Adapters (LoRA) beside training all weights: the demo's run, measured before and after by the
exact checker. The last line is JSON, for all weights and for each of `--ranks`:

pass_at_1, verifier_accuracy, verifier_faithfulness
                before and after, on 256 test problems
trained         weights that train, in both roles together
step_bytes      what a step writes to the store: version and checkpoint
seconds         of the whole run, measuring included

`--small`: rank 4 only, two steps and a small measurement.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from proofloop.cli.common import open_engines
from proofloop.cli.demo.spec import EVAL_SIZE, QUICK_EVAL_SIZE, demo_spec
from proofloop.config.run_file import RunSpec, parse_runspec
from proofloop.pipeline.embedded import EmbeddedPipeline
from proofloop.pipeline.evaluation import Evaluation, Evaluator
from proofloop.runs.create import create_run
from proofloop.schema import keys
from proofloop.store import LocalStore

SHOWN = ("pass_at_1", "verifier_accuracy", "verifier_faithfulness")


def spec_of(seed: int, rank: int, rate: float, *, small: bool) -> RunSpec:
    """The demo's run; with a rank above 0 its roles train adapters at `rate` times the rates."""
    fields = demo_spec(seed, quick=small).model_dump(exclude_unset=True)
    if rank:
        fields["lora"] = {"rank": rank, "alpha": 2 * rank}
        for role in ("generator", "verifier"):
            fields["training"][role]["settings"]["learning_rate"] *= rate
    return parse_runspec(fields, "the benchmark")


def measure(spec: RunSpec, folder: Path, *, small: bool) -> dict[str, Any]:
    store, began = LocalStore(folder), time.monotonic()
    size, stopping = QUICK_EVAL_SIZE if small else EVAL_SIZE, threading.Event()
    with open_engines(store) as engines:
        evaluator = Evaluator(spec, store, engines, size, lambda *_: None, stopping)
        before = evaluator.before()
        create_run(store, spec, resume=True)
        with EmbeddedPipeline(store, engines, spec, stopping=stopping) as pipeline:
            pipeline.run()
        after = evaluator.after()
    return {
        **{name: [_mean(before, name), _mean(after, name)] for name in SHOWN},
        "trained": sum(_trained(store, spec.name, role) for role in spec.training.roles),
        "step_bytes": _step_bytes(store, spec),
        "seconds": round(time.monotonic() - began),
    }


def _mean(evaluation: Evaluation, name: str) -> float:
    return round(getattr(evaluation, name).value, 3)


def _trained(store: LocalStore, run: str, role: str) -> int:
    """The number of weights in a version's files, by their size in 32 bits."""
    files = [key for key in store.list(keys.models(run, role)) if key.endswith(".safetensors")]
    newest = max(files)
    return store.path(newest).stat().st_size // 4


def _step_bytes(store: LocalStore, spec: RunSpec) -> int:
    """The bytes of the newest version and checkpoint of one role."""
    role = spec.training.roles[0]
    newest = [max(store.list(of(spec.name, role))) for of in (keys.models, keys.checkpoints)]
    return sum(
        store.path(key).stat().st_size
        for folder in map(keys.version_of, newest)
        for key in store.list(f"{folder}/")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ranks", type=int, nargs="+", default=[0, 4, 16], help="0: all weights")
    parser.add_argument("--rate", type=float, default=10, help="learning rate, times the demo's")
    options = parser.parse_args()
    found = {}
    for rank in [4] if options.small else options.ranks:
        spec = spec_of(options.seed, rank, options.rate, small=options.small)
        name = f"rank {rank}" if rank else "all weights"
        with tempfile.TemporaryDirectory() as folder:
            found[name] = measure(spec, Path(folder), small=options.small)
        print(name, found[name], flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
