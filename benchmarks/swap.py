"""Promotes and rolls back model versions under 48 running streams; counts failed calls, mixed
proofs and added waits.

A real Triton serves nano-base, published as two versions of a verifier and a third with truncated
weights. 48 callers make eight calls for each proof, all to one version, like a proof's critiques.
Meanwhile `proofloop models` promotes the second version, then the broken one, then rolls back. The
last line is JSON. A wait is the duration of a call. The added wait is the 99th percentile from the
promotion's start to two seconds after its end, minus the one before. `--small`: shorter.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.builders import RUN, runspec
from tests.integration.triton_server import own_triton
from tests.nano_base import nano_base_folder

from proofloop.config.run_file import RunSpec
from proofloop.engine.base import ChatMessage, Engine, GenerationRequest
from proofloop.errors import EngineError
from proofloop.runs.model_registry import served_log
from proofloop.schema import keys
from proofloop.schema.records import Sampling
from proofloop.store import LocalStore, Store
from proofloop.store.model_folders import publish_folder
from proofloop.worker.engine_pool import Engines
from proofloop.worker.tools import Tools
from proofloop_trainer.checkpoint import write_model_manifest

STREAMS, CRITIQUES, AFTER_S, ANSWER_S = 48, 8, 2.0, 120.0
FIRST, SECOND, BROKEN = (keys.model(RUN, "verifier", step) for step in (1, 2, 3))


@dataclass
class Seen:
    """The results of the calls: start and duration of each, failures, and proofs answered by two
    versions.
    """

    waits: list[tuple[float, float]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def p99(self, begin: float, end: float) -> float:
        """The 99th percentile of the waits of all calls that ran between the two times."""
        waits = sorted(wait for began, wait in self.waits if began < end and began + wait > begin)
        return waits[int(0.99 * (len(waits) - 1))]


def main() -> None:
    pause_s = 5.0 if "--small" in sys.argv else 20.0
    with tempfile.TemporaryDirectory() as name, own_triton() as triton:
        store = LocalStore(Path(name, "store"))
        publish_versions(store, Path(name))
        triton.environment["PROOFLOOP_STORE"] = str(store.root)
        assert triton.kill and triton.start
        triton.kill()
        triton.start()
        engine = {"kind": "triton", "settings": {"endpoints": [triton.endpoint]}}
        spec = runspec(name=RUN, engine=engine, models={"verifier": FIRST})
        store.put_if_absent(keys.run_spec(RUN), spec.model_dump_json().encode())
        print(json.dumps(measure(store, spec, Path(name), pause_s)))


def publish_versions(store: Store, folder: Path) -> None:
    """Publish nano-base three times; the weights of BROKEN are truncated."""
    for version in (FIRST, SECOND, BROKEN):
        model = folder / keys.name_of(version)
        shutil.copytree(nano_base_folder(), model)
        if version == BROKEN:
            weights = model / "model.safetensors"
            weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
        write_model_manifest(model, 0)
        publish_folder(store, model, version)


def measure(store: LocalStore, spec: RunSpec, cache: Path, pause_s: float) -> dict[str, float]:
    engines, seen = Engines(store, cache), Seen()
    engine = engines.of(spec, "verifier")
    engines.prepare(spec, "verifier", FIRST)
    tools = Tools(store, engine_for=lambda *_: engine)
    callers = [threading.Thread(target=ask, args=(engine, tools, seen)) for _ in range(STREAMS)]
    for caller in callers:
        caller.start()
    time.sleep(pause_s / 2)  # the first calls find nothing in the cache
    before = time.monotonic()
    time.sleep(pause_s)
    began = time.monotonic()
    said = [proofloop(store, "promote", "verifier", "2")]
    ended = time.monotonic()
    time.sleep(pause_s)
    said.append(proofloop(store, "promote", "verifier", "3"))
    time.sleep(pause_s / 2)
    said.append(proofloop(store, "rollback", "verifier"))
    time.sleep(pause_s / 2)
    seen.done.set()
    for caller in callers:
        caller.join()
    engines.close()
    assert said == [0, 2, 0], f"exit codes of promote, broken promote, rollback: {said}"
    assert [line.version for line in served_log(store, RUN, "verifier")] == [SECOND, FIRST]
    usual = seen.p99(before, began)
    return {
        "requests": len(seen.waits) + len(seen.failed),
        "failed": len(seen.failed),
        "mixed": len(seen.mixed),
        "wait_p99_before_s": round(usual, 3),
        "added_wait_p99_s": round(seen.p99(began, ended + AFTER_S) - usual, 3),
        "promote_s": round(ended - began, 2),
    }


def ask(engine: Engine, tools: Tools, seen: Seen) -> None:
    """One caller: makes the critiques of one proof after the other."""
    while not seen.done.is_set():
        proof, version = uuid.uuid4().hex[:8], tools.runs.serving(RUN, "verifier")
        versions = {
            answered_by(engine, proof, index, version, seen) for index in range(CRITIQUES)
        } - {""}
        if versions - {version}:
            seen.mixed.append(proof)


def answered_by(engine: Engine, proof: str, index: int, version: str, seen: Seen) -> str:
    """The version that answered one call; empty for a call that failed."""
    request = GenerationRequest(
        id=f"verifier:{proof}:{index}:{uuid.uuid4().hex[:8]}",
        model=version,
        messages=(ChatMessage("user", "Review 3+4=7."),),
        sampling=Sampling(max_tokens=64),
        seed=index,
        affinity=proof,
    )
    began = time.monotonic()
    try:
        answer = engine.submit(request).result(ANSWER_S)
    except (EngineError, TimeoutError) as error:
        print(f"failed: {error}", file=sys.stderr)
        seen.failed.append(proof)
        return ""
    seen.waits.append((began, time.monotonic() - began))
    return answer.model_version


def proofloop(store: LocalStore, *words: str) -> int:
    """The exit code of `proofloop models ...`."""
    program = Path(sys.executable).parent / "proofloop"
    command = [program, "models", *words, "--run", RUN, "--store", store.root]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True)
    print(
        f"{' '.join(words)}: exit code {done.returncode}: {(done.stdout + done.stderr).strip()}",
        file=sys.stderr,
    )
    return done.returncode


if __name__ == "__main__":
    main()
