"""Training as a service on RabbitMQ and S3: a supervised training, then a verifier that learns from
given proofs step by step; the trainer is killed in both.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from proofloop.config.settings import load_settings
from proofloop.runs.model_registry import published_versions
from proofloop.schema import keys
from proofloop.schema.records import ALL_ROLES, TrainingBatch
from proofloop.store import Store, get_record, open_store
from proofloop.store.model_folders import manifest_files
from tests.integration.installation import Installation
from tests.integration.test_given_training import proofs
from tests.waiting import wait_until

pytest.importorskip("proofloop_trainer", reason="proofloop-trainer is not installed")

from proofloop_trainer.checkpoint import weights_digest
from proofloop_trainer.nano import base_folder
from proofloop_trainer.nano.pretrain import cold_start

pytestmark = pytest.mark.timeout(900)  # 320 s on a machine that does much else

LESSONS = 30
SUPERVISED = f"""
[fine_tuning]
domain = "nano"
steps = {LESSONS}
batch = 8
learning_rate = 1e-3
"""
STEPS, CASES = 2, 4
VERIFIER = f"""
prompts = "nano"
[problems]
given_proofs = "rows.jsonl"
[sampling]
verifier = {{ max_tokens = 96 }}
[labeling]
n = 4
m = 0
k = 1
stop_early = false
[reward]
meta = false
[training]
problems = {CASES}
ahead = 1.0
[training.verifier]
steps = {STEPS}
train_on = "all"
"""


def write(installation: Installation, name: str, text: str) -> str:
    file = installation.folder / f"{name}.toml"
    file.write_text(text)
    return str(file)


def count(store: Store, prefix: str) -> int:
    return sum(1 for _ in store.list(prefix))


def restart(installation: Installation) -> None:
    installation.kill("trainer")
    installation.start("trainer", concurrency=1)


def test_a_supervised_training_survives_a_killed_trainer(
    installation: Installation, tmp_path: Path
) -> None:
    store = open_store(load_settings())
    installation.start("trainer", concurrency=1)
    tuning = installation.call("run", write(installation, "sft", SUPERVISED))
    recorded = keys.steps("sft", ALL_ROLES)
    assert wait_until(lambda: count(store, recorded) >= 5, 180), installation.log()
    restart(installation)
    assert tuning.wait(240) == 0, installation.log()
    (version,) = published_versions(store, "sft", ALL_ROLES)
    own = tmp_path / "own"
    cold_start(base_folder(), own, seed=0, steps=LESSONS, batch=8, learning_rate=1e-3)
    assert manifest_files(store, version)["model.safetensors"] == weights_digest(own)
    assert not list(installation.letters.letters())


def test_a_verifier_learns_each_given_proof_once_whatever_kills_its_trainer(
    installation: Installation,
) -> None:
    store = open_store(load_settings())
    for role in ("verifier", "meta_verifier", "labeler"):
        installation.start(role)
    installation.start("trainer", concurrency=1)
    training = installation.call("run", write_verifier_run(installation))
    for step in range(STEPS):
        has_batch = partial(store.exists, keys.batch("learn", "verifier", step))
        assert wait_until(has_batch, 240), installation.log()
        restart(installation)
    assert training.wait(240) == 0, installation.log()
    stored = store.list(keys.batches("learn", "verifier"))
    batches = [get_record(store, key, TrainingBatch) for key in stored]
    names = [f"c{number:06d}-000" for number in range(STEPS * CASES)]
    assert [list(batch.problems) for batch in batches] == [
        names[step * CASES : (step + 1) * CASES] for step in range(STEPS)
    ]
    for step, batch in enumerate(batches):
        expected = keys.model("learn", "verifier", step) if step else "nano-base"
        assert {sample.model_version for sample in batch.samples} == {expected}
    assert len(published_versions(store, "learn", "verifier")) == STEPS
    assert not list(installation.letters.letters())


def write_verifier_run(installation: Installation) -> str:
    rows = [
        {"question": case.question, "solution": case.solution, "score": case.given.score}
        for case in proofs(STEPS * CASES)
        if case.given
    ]
    (installation.folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return write(installation, "learn", VERIFIER)
