"""Evaluation before and after: the verifiers are compared on the same proofs."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from proofloop.pipeline.evaluation import EvalSize, Evaluator
from proofloop.runs.answers import proofs_of
from proofloop.runs.costs import costs
from proofloop.runs.create import create_run
from proofloop.schema import keys
from proofloop.schema.records import Proof
from proofloop.store import LocalStore
from proofloop.worker.engine_pool import Engines
from tests.builders import RUN, runspec

pytestmark = pytest.mark.usefixtures("quiet_log")

SIZE = EvalSize(problems=3, proofs_per_problem=2, n=2, m=1, k=1)


def test_the_verifier_after_training_judges_the_readable_proofs_of_before(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    simulated = {"kind": "simulated", "settings": {"malformed_share": 0.3}}
    spec = runspec(problems={"domain": "nano"}, engine=simulated)
    engines = Engines(store, tmp_path / "cache")
    evaluator = Evaluator(spec, store, engines, SIZE, lambda *_: None, threading.Event())
    evaluator.before()
    create_run(store, spec, resume=True)
    found = evaluator.after()
    before = [proof for proof in proofs_of(store, f"{RUN}-before") if is_readable(proof)]
    after = list(proofs_of(store, f"{RUN}-after-verifier"))
    assert 0 < len(before) < 6
    assert [proof.solution for proof in after] == [proof.solution for proof in before]
    assert costs(store, f"{RUN}-after-verifier").by_role["generator"].calls == 0
    assert found.pass_at_1.cases == 6
    assert store.exists(keys.evaluation(f"{RUN}-after-verifier"))


def is_readable(proof: Proof) -> bool:
    return proof.verdict.outcome == "valid"
