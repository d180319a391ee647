"""Evaluations are small runs of the same walk on the test split: the same code proves and labels, the checker measures.

Verifiers are compared on the *same* proofs: those that the first generator wrote before any training.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from proofloop import keys
from proofloop.domains import load_domain
from proofloop.engine.pool import Engines
from proofloop.errors import ConfigError
from proofloop.ledger import Progress
from proofloop.measure import Evaluation, proofs_of
from proofloop.measure import evaluate_run as measure_run
from proofloop.records import Record
from proofloop.runspec import Labeling, Models, Problems, RunSpec, Training
from proofloop.runtime import Tools
from proofloop.store import Store, find_record, put_record
from proofloop.walk import LocalWalk, create_run, planned_proofs


class Summary(Record):
    """What a run with training comes to."""

    run_id: str
    seconds: float
    before: Evaluation
    after: Evaluation


class EvalSize(Record):
    """How much an evaluation measures: each figure's interval narrows with the root of it."""

    problems: int = 256
    proofs_per_problem: int = 2
    n: int = 8
    m: int = 3
    k: int = 2


Report = Callable[[str, Progress], None]


def evaluate_before(
    spec: RunSpec, store: Store, engines: Engines, size: EvalSize, report: Report, stopping: threading.Event
) -> Evaluation:
    """The figures of the models that the run begins with."""
    return _evaluate(_eval_spec(spec, "before", spec.models, size), store, engines, report, stopping)


def evaluate_after(
    spec: RunSpec, store: Store, engines: Engines, size: EvalSize, report: Report, stopping: threading.Event
) -> Evaluation:
    """The figures of the models in service at the end: the generator's own new proofs, the verifier on `before`'s."""
    tools = Tools(store, engines.of)
    served = Models(**{role: tools.serving(spec.name, role) for role in ("generator", "verifier", "meta_verifier")})
    judging = _eval_spec(spec, "after-verifier", served, size)
    _copy_proofs(store, f"{spec.name}-before", judging.name, served.verifier)
    verifier = _evaluate(judging, store, engines, report, stopping)
    proving = _eval_spec(spec, "after-generator", served, size.model_copy(update={"n": 1, "m": 1, "k": 1}))
    generator = _evaluate(proving, store, engines, report, stopping)
    own = {name: getattr(generator, name) for name in ("pass_at_1", "self_eval_error")}
    return verifier.model_copy(update=own)


def find_summary(store: Store, run_id: str) -> Summary | None:
    """The summary of a run that was evaluated before and after."""
    return find_record(store, keys.summary(run_id), Summary)


def _eval_spec(spec: RunSpec, name: str, models: Models, size: EvalSize) -> RunSpec:
    if spec.problems.domain is None:
        raise ConfigError(
            f"run {spec.name!r} has problems without an exact checker", "evaluate by people's grades instead"
        )
    problems = Problems(
        domain=spec.problems.domain, split="test", count=size.problems, proofs_per_problem=size.proofs_per_problem
    )
    update = {
        "name": f"{spec.name}-{name}",
        "models": models,
        "problems": problems,
        "labeling": Labeling(n=size.n, m=size.m, k=size.k, stop_early=False),
        "training": Training(),
    }
    return spec.model_copy(update=update)


def _evaluate(spec: RunSpec, store: Store, engines: Engines, report: Report, stopping: threading.Event) -> Evaluation:
    found = find_record(store, keys.evaluation(spec.name), Evaluation)
    if found is not None:
        return found
    create_run(store, spec, resume=True)
    with LocalWalk(store, engines, spec, stopping=stopping) as walk:
        walk.run(planned_proofs(spec), lambda progress: report(spec.name, progress))
    assert spec.problems.domain is not None
    return put_record(
        store, keys.evaluation(spec.name), measure_run(store, spec.name, load_domain(spec.problems.domain))
    )


def _copy_proofs(store: Store, source: str, target: str, verifier_version: str) -> None:
    """Give a run the proofs of another: its generator finds them written and only asks for their reviews."""
    for proof in proofs_of(store, source):
        copy = proof.model_copy(update={"run_id": target, "verifier_version": verifier_version})
        put_record(store, keys.proof(target, proof.id), copy)
