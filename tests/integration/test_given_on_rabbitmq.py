"""Given proofs and analyses on services: no generator runs, workers and the driver are killed, and
every call is made once for each case.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from proofloop.config.settings import load_settings
from proofloop.method.domains.nano import NanoDomain
from proofloop.runs.costs import costs
from proofloop.runs.model_registry import published_versions
from proofloop.schema import keys
from proofloop.schema.records import Label, TrainingBatch
from proofloop.store import Store, get_record, open_store
from tests.integration.installation import Installation
from tests.waiting import wait_until

CASES, CRITIQUES, METAS = 60, 4, 3
RUN = """
[problems]
{source} = "rows.jsonl"
[engine]
kind = "simulated"
settings = {{ latency_s = 0.2 }}
[flow]
max_waiting_proofs = 24
[models]
verifier = "rehearsal"
meta_verifier = "rehearsal"
[labeling]
n = 4
m = {m}
k = 2
given_m = 3
"""
JUDGES = ("verifier", "meta_verifier", "labeler")


def write_run(folder: Path, source: str, m: int) -> str:
    rows = [
        {
            "question": f"Prove {number}.",
            "solution": f"Simulated proof {number:x} of quality 1.",
            "analysis": "Simulated analysis claims quality 0.",
            "score": number % 2,
            "quality": number % 2,
        }
        for number in range(CASES)
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    file = folder / f"{source.replace('_', '-')}.toml"
    file.write_text(RUN.format(source=source, m=m))
    return str(file)


def labels_of(store: Store, run: str) -> list[Label]:
    return [get_record(store, key, Label) for key in store.list(keys.labels(run))]


def check_labels(store: Store, run: str) -> None:
    labels = labels_of(store, run)
    assert [label.proof_id for label in labels] == [f"c{n:06d}-000" for n in range(CASES)]
    assert Counter((label.kind, label.outcome) for label in labels) == {
        ("graded", "accepted"): CASES / 2,
        ("graded", "rejected"): CASES / 2,
    }


def test_given_proofs_survive_killed_workers_and_a_killed_driver(
    installation: Installation,
) -> None:
    run, store = write_run(installation.folder, "given_proofs", m=0), open_store(load_settings())
    for role in JUDGES:
        installation.start(role)
    posing = installation.call("run", run)
    assert wait_until(lambda: len(labels_of(store, "given-proofs")) >= 5, 180), installation.log()
    installation.kill("verifier")
    posing.kill()
    installation.start("verifier")
    resumed = installation.call("run", run, "--resume")
    assert wait_until(lambda: len(labels_of(store, "given-proofs")) >= 20, 120), installation.log()
    installation.kill("labeler")
    installation.start("labeler")
    assert resumed.wait(180) == 0, installation.log()
    check_labels(store, "given-proofs")
    calls = {role: spent.calls for role, spent in costs(store, "given-proofs").by_role.items()}
    assert calls == {"generator": 0, "verifier": CASES * CRITIQUES, "meta_verifier": 0}
    assert not list(installation.letters.letters())


def test_given_analyses_are_judged_by_the_meta_verifier_alone(installation: Installation) -> None:
    run, store = write_run(installation.folder, "given_analyses", m=0), open_store(load_settings())
    for role in ("meta_verifier", "labeler"):
        installation.start(role)
    assert installation.call("run", run).wait(120) == 0, installation.log()
    check_labels(store, "given-analyses")
    calls = {role: spent.calls for role, spent in costs(store, "given-analyses").by_role.items()}
    assert calls == {"generator": 0, "verifier": 0, "meta_verifier": CASES * METAS}
    assert "roles_without_workers" not in (installation.folder / "log.txt").read_text()


TRAINS = """
seed = 1
[problems]
given_proofs = "proofs.jsonl"
[engine]
kind = "local"
[sampling.verifier]
max_tokens = 96
[labeling]
n = 3
m = 0
k = 1
stop_early = false
[reward]
meta = false
[training]
problems = 2
ahead = 1
[training.verifier]
steps = 3
train_on = "all"
settings = { epochs = 1, learning_rate = 1e-3 }
"""


def test_on_policy_steps_survive_a_killed_trainer_and_a_killed_verifier(
    installation: Installation,
) -> None:
    """Each step's batch has the critiques of its two cases, all by the version before it."""
    pytest.importorskip("proofloop_trainer", reason="proofloop-trainer is not installed")
    posed = (NanoDomain().pose(number, split="train", seed=0).question for number in range(6))
    rows = [
        {"question": question, "solution": "a 2 + 3 = 5\nb 5 * 4 = 0", "score": number % 2}
        for number, question in enumerate(posed)
    ]
    (installation.folder / "proofs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    file, store = installation.folder / "trains.toml", open_store(load_settings())
    file.write_text(f'prompts = "nano"\n{TRAINS}')
    installation.environment["OMP_NUM_THREADS"] = "1"
    for role in (*JUDGES, "trainer"):
        installation.start(role, concurrency=1 if role == "trainer" else 16)
    posing = installation.call("run", str(file))
    for role in ("trainer", "verifier"):
        step = 0 if role == "trainer" else 1
        begun = keys.batch("trains", "verifier", step)
        assert wait_until(lambda key=begun: store.exists(key), 240), installation.log()
        installation.kill(role)
        installation.start(role, concurrency=1 if role == "trainer" else 16)
    assert posing.wait(400) == 0, installation.log()
    versions = ["nano-base", *(keys.model("trains", "verifier", step) for step in (1, 2))]
    for step, version in enumerate(versions):
        batch = get_record(store, keys.batch("trains", "verifier", step), TrainingBatch)
        cases = (f"c{number:06d}-000" for number in (2 * step, 2 * step + 1))
        assert [(sample.key, sample.model_version) for sample in batch.samples] == [
            (keys.critique("trains", case, index), version) for case in cases for index in range(3)
        ]
    assert published_versions(store, "trains", "verifier")[-1] == keys.model(
        "trains", "verifier", 3
    )
    assert not list(installation.letters.letters())
