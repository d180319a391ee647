"""Runs that train, driven to their end in one process: on given proofs and analyses, portion by
portion, and by supervision. nano-base answers and learns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proofloop.config.run_file import RunSpec, parse_runspec
from proofloop.errors import HintedError
from proofloop.method.domains.nano import NanoDomain
from proofloop.pipeline.embedded import EmbeddedPipeline
from proofloop.runs.answers import meta_critiques_of
from proofloop.runs.create import create_run
from proofloop.runs.given import keep_portion
from proofloop.runs.model_registry import published_versions
from proofloop.runs.planned import is_complete
from proofloop.runs.progress import RunProgress
from proofloop.schema import keys
from proofloop.schema.given import GivenCase, GivenPortion
from proofloop.schema.records import Critique, Given, ModelRole, TrainingBatch
from proofloop.store import LocalStore, get_record
from proofloop.worker.engine_pool import Engines
from tests.builders import RUN, runspec

pytest.importorskip("proofloop_trainer", reason="proofloop-trainer is not installed")

from proofloop_trainer.nano import base_folder

pytestmark = pytest.mark.usefixtures("quiet_log")

ROLES: tuple[ModelRole, ...] = ("generator", "verifier", "meta_verifier")
BASE = str(base_folder())
N, M = 3, 2
QUESTIONS = [NanoDomain().pose(number, split="train", seed=0).question for number in range(8)]
PROOF = "a 2 + 3 = 5\nb 5 * 4 = 0"


def spec_of(training: dict[str, Any], **labeling: Any) -> RunSpec:
    """Two cases a step, on policy."""
    settings = {"epochs": 1, "learning_rate": 1e-3}
    roles = {
        role: {"steps": steps, "train_on": "all", "settings": settings}
        for role, steps in training.items()
    }
    return runspec(
        prompts="nano",
        problems={"material": True, "proofs_per_problem": 2},
        engine={"kind": "local"},
        models=dict.fromkeys(ROLES, BASE),
        sampling={role: {"max_tokens": 96} for role in ROLES},
        labeling={"n": N, "m": 0, "k": 1, "stop_early": False, "given_m": M, **labeling},
        reward={"meta": False},
        training={"problems": 2, "ahead": 1.0, **roles},
        flow={"generator": 16, "verifier": 32, "meta_verifier": 32},
    )


def proof(number: int) -> GivenCase:
    given = Given(score=float(number % 2), by="checker")
    return GivenCase(question=QUESTIONS[number], solution=PROOF, given=given)


def analysis(number: int) -> GivenCase:
    given = Given(is_analysis=True, quality=float(number % 2), by="checker")
    return GivenCase(question=QUESTIONS[number], solution=PROOF, analysis="b wrong", given=given)


def drive(store: LocalStore, spec: RunSpec, *cases: GivenCase) -> RunProgress:
    portions = [GivenPortion(cases=cases)] if cases else []
    create_run(store, spec, resume=True, portions=portions)
    engines = Engines(store, store.root / "cache")
    try:
        with EmbeddedPipeline(store, engines, spec) as pipeline:
            return pipeline.run()
    finally:
        engines.close()


def judges_of(store: LocalStore, case: int) -> set[str]:
    """The versions that wrote the critiques of a case, or its meta-critiques."""
    name = f"c{case:06d}-000"
    metas = meta_critiques_of(store, RUN, name, 0).values()
    found = [get_record(store, key, Critique) for key in store.list(keys.critiques(RUN, name))]
    return {each.provenance.model_version for each in (metas or found)}


def batches(store: LocalStore, role: str) -> list[tuple[str, ...]]:
    found = [get_record(store, key, TrainingBatch) for key in store.list(keys.batches(RUN, role))]
    return [tuple(dict.fromkeys(sample.group for sample in batch.samples)) for batch in found]


def test_each_case_meets_the_version_of_its_step_and_portions_go_on_from_there(
    tmp_path: Path,
) -> None:
    store, spec = LocalStore(tmp_path), spec_of({"verifier": 3})
    progress = drive(store, spec, *map(proof, range(4)))
    assert progress.steps == {"verifier": 2}
    keep_portion(store, RUN, 1, map(proof, range(4, 8)))
    progress = drive(store, spec)
    assert progress.steps == {"verifier": 3}
    expected = [BASE, *(keys.model(RUN, "verifier", step) for step in (1, 2, 3))]
    assert [judges_of(store, case) for case in range(8)] == [
        {expected[case // 2]} for case in range(8)
    ]
    groups = [tuple(f"c{n:06d}-000" for n in pair) for pair in ((0, 1), (2, 3), (4, 5))]
    assert batches(store, "verifier") == groups


def test_a_verifier_that_trains_alone_learns_to_judge_analyses_too(tmp_path: Path) -> None:
    store, spec = LocalStore(tmp_path), spec_of({"verifier": 2})
    drive(store, spec, proof(0), analysis(1), proof(2), analysis(3))
    first = keys.model(RUN, "verifier", 1)
    assert [judges_of(store, case) for case in range(4)] == [{BASE}, {BASE}, {first}, {first}]
    assert len(published_versions(store, RUN, "verifier")) == 2
    assert len(batches(store, "verifier")[0]) == 2


def test_a_meta_verifier_learns_from_given_analyses(tmp_path: Path) -> None:
    store, spec = LocalStore(tmp_path), spec_of({"meta_verifier": 1})
    progress = drive(store, spec, analysis(0), analysis(1))
    assert progress.steps == {"meta_verifier": 1}
    assert batches(store, "meta_verifier") and not batches(store, "verifier")


def sft(**section: Any) -> RunSpec:
    fields = {"name": RUN, "prompts": "nano", "fine_tuning": {"start": BASE, **section}}
    return parse_runspec(fields, "a test")


def test_a_supervised_training_is_a_run_that_ends_with_its_model(tmp_path: Path) -> None:
    store, spec = LocalStore(tmp_path), sft(domain="nano", steps=2, batch=4)
    progress = drive(store, spec)
    version = keys.model(RUN, "all", 2)
    assert (progress.planned, published_versions(store, RUN, "all")) == (0, [version])
    assert is_complete(store, spec)
    written = store.path(f"{version}/manifest.json").stat().st_mtime_ns
    drive(store, spec)  # nothing is left to do
    assert store.path(f"{version}/manifest.json").stat().st_mtime_ns == written


def test_a_supervised_training_that_fails_tells_why_and_can_be_resumed(tmp_path: Path) -> None:
    no_model = tmp_path / "no-model"
    no_model.mkdir()
    (no_model / "config.json").write_text("{}")
    store = LocalStore(tmp_path / "store")
    spec = sft(start=str(no_model), domain="nano", steps=1)
    for _ in range(2):
        with pytest.raises(HintedError, match=r"the supervised training failed: .*model") as raised:
            drive(store, spec)
        assert "dead list --run r1" in str(raised.value)
        assert not is_complete(store, spec)
