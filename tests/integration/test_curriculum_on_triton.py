"""The curriculum with a real Triton in the place of the engine in this process: each step's version
is loaded there.
"""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from tritonclient.grpc import InferenceServerClient

pytest.importorskip("proofloop_trainer", reason="proofloop-trainer is not installed")

from proofloop.config.curriculum_file import CurriculumSpec
from proofloop.curriculum.controller import iterate
from proofloop.curriculum.status import manifests
from proofloop.schema import keys
from proofloop.schema.records import TrainingBatch
from proofloop.store import LocalStore, get_record
from proofloop.worker.engine_pool import Engines
from tests.integration.triton_server import own_triton
from tests.nano_base import nano_base_folder

pytestmark = pytest.mark.usefixtures("quiet_log")
ANSWER = {"max_tokens": 96}


def test_every_step_is_sampled_by_the_version_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PROOFLOOP_STORE", str(tmp_path))  # the server reads the versions there
    with own_triton() as triton:
        settings = {"endpoints": [triton.endpoint], "server_settings": "nano-cpu.yaml"}
        spec = CurriculumSpec.model_validate(
            {
                "name": "small",
                "start": str(nano_base_folder()),
                "iterations": 1,
                "measured": 0,
                "engine": {"kind": "triton", "settings": settings},
                "sampling": dict.fromkeys(("generator", "verifier", "meta_verifier"), ANSWER),
                "cold_start": {"steps": 0},
                "data": {"problems": 12, "proofs": 12, "analyses": 12, "validation": 4},
                "verifier": {"steps": 2, "groups": 4, "samples": 4},
                "meta_verifier": {"steps": 0},
                "enhanced": {"steps": 0},
                "generator": {"steps": 1, "groups": 2, "samples": 4, "critiques": 2, "metas": 1},
                "labels": {
                    "problems": 2,
                    "proofs_per_problem": 1,
                    "rule": {"n": 2, "m": 1, "k": 1},
                },
                "consolidate": {"prompts": 4, "samples": 2},
            }
        )
        store = LocalStore(tmp_path)
        engines = Engines(store, tmp_path / "cache")
        try:
            iterate(spec, store, engines, threading.Event(), lambda _: None)
        finally:
            engines.close()
        with InferenceServerClient(triton.endpoint) as client:
            names = [each.name for each in client.get_inference_statistics().model_stats]
    assert sum(name.startswith("runs.small") for name in names) <= 4  # of all stages together
    assert list(manifests(store, spec)) == ["1-verifier", "1-generator", "1-label", "1-consolidate"]
    for step in range(2):
        run = "small-1-verifier"
        batch = get_record(store, keys.batch(run, "verifier", step), TrainingBatch)
        before = keys.model(run, "verifier", step) if step else spec.start
        assert {sample.model_version for sample in batch.samples} == {before}
        assert all(
            len(sample.tokens.logprobs) == len(sample.tokens.completion_ids)
            for sample in batch.samples
        )
