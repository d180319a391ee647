"""Evaluation before and after training: small runs on the test split, measured by the domain's
exact checker.

The verifiers before and after are compared on the *same* proofs, which the first generator wrote
before any training.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from proofloop.config.run_file import Models, RunSpec
from proofloop.config.run_file.labeling import Labeling
from proofloop.config.run_file.problems import Problems
from proofloop.config.run_file.training import Training
from proofloop.errors import ConfigError
from proofloop.method.domains import load_domain, need_checker
from proofloop.pipeline.embedded import EmbeddedPipeline
from proofloop.runs.create import create_run
from proofloop.runs.figures import Evaluation, proofs_of
from proofloop.runs.figures import evaluate_run as measure_run
from proofloop.runs.progress import RunProgress
from proofloop.schema import keys
from proofloop.schema.given import GivenCase, GivenPortion
from proofloop.schema.records import Given, Problem, Record
from proofloop.store import Store, find_record, get_record, put_record
from proofloop.worker.engine_pool import Engines
from proofloop.worker.tools import Tools


class TrainingSummary(Record):
    """The figures of a run with training before and after it, and the whole run's duration in
    seconds.
    """

    run_id: str
    seconds: float
    before: Evaluation
    after: Evaluation


class EvalSize(Record):
    """The size of an evaluation. The figures' intervals narrow with the square root of
    `problems`.
    """

    problems: int = 256
    proofs_per_problem: int = 2
    n: int = 8
    m: int = 3
    k: int = 2


Report = Callable[[str, RunProgress], None]


def evaluate_before(
    spec: RunSpec,
    store: Store,
    engines: Engines,
    size: EvalSize,
    report: Report,
    stopping: threading.Event,
) -> Evaluation:
    """Measure the models that the run begins with. Raises ConfigError if the problems have no exact
    checker.
    """
    return _evaluate(
        _eval_spec(spec, "before", spec.models, size), store, engines, report, stopping
    )


def evaluate_after(
    spec: RunSpec,
    store: Store,
    engines: Engines,
    size: EvalSize,
    report: Report,
    stopping: threading.Event,
) -> Evaluation:
    """Measure the models in service at the end: the generator on new proofs, the verifier on those
    of `before`.

    Raises ConfigError if the problems have no exact checker.
    """
    tools = Tools(store, engines.of)
    served = Models(
        **{
            role: tools.runs.serving(spec.name, role)
            for role in ("generator", "verifier", "meta_verifier")
        }
    )
    judging = _of_given(_eval_spec(spec, "after-verifier", served, size))
    given = GivenPortion(cases=tuple(_readable_proofs(store, f"{spec.name}-before")))
    verifier = _evaluate(judging, store, engines, report, stopping, [given])
    proving = _eval_spec(
        spec, "after-generator", served, size.model_copy(update={"n": 1, "m": 1, "k": 1})
    )
    generator = _evaluate(proving, store, engines, report, stopping)
    return verifier.model_copy(
        update={"pass_at_1": generator.pass_at_1, "self_eval_error": generator.self_eval_error}
    )


def find_summary(store: Store, run_id: str) -> TrainingSummary | None:
    """The summary of a run that was evaluated before and after training; None if there is none."""
    return find_record(store, keys.summary(run_id), TrainingSummary)


def _eval_spec(spec: RunSpec, name: str, models: Models, size: EvalSize) -> RunSpec:
    if spec.problems.domain is None:
        raise ConfigError(
            f"run {spec.name!r} has problems without an exact checker",
            "grade proofs with `proofloop ui` and compare the labels with the grades",
        )
    problems = Problems(
        domain=spec.problems.domain,
        split="test",
        count=size.problems,
        proofs_per_problem=size.proofs_per_problem,
    )
    update = {
        "name": f"{spec.name}-{name}",
        "models": models,
        "problems": problems,
        "labeling": Labeling(
            n=size.n, m=size.m, k=size.k, stop_early=False, retry_unreadable=False
        ),
        "training": Training(),
    }
    return spec.model_copy(update=update)


def _of_given(spec: RunSpec) -> RunSpec:
    """The same for given proofs of the domain."""
    given = Problems(material=True, has_proofs=True, checker=spec.problems.domain)
    return spec.model_copy(update={"problems": given})


def _readable_proofs(store: Store, run_id: str) -> Iterator[GivenCase]:
    """The proofs of a run as cases of another."""
    for proof in proofs_of(store, run_id):
        if proof.verdict.outcome == "valid":
            problem = get_record(store, keys.problem(run_id, proof.problem_id), Problem)
            origin = Given(origin=f"{run_id}/{proof.id}")
            yield GivenCase(question=problem.question, solution=proof.solution, given=origin)


def _evaluate(
    spec: RunSpec,
    store: Store,
    engines: Engines,
    report: Report,
    stopping: threading.Event,
    portions: Sequence[GivenPortion] = (),
) -> Evaluation:
    found = find_record(store, keys.evaluation(spec.name), Evaluation)
    if found is not None:
        return found
    create_run(store, spec, resume=True, portions=portions)
    with EmbeddedPipeline(store, engines, spec, stopping=stopping) as pipeline:
        pipeline.run(lambda progress: report(spec.name, progress))
    assert spec.problems.checked_by is not None
    checker = need_checker(load_domain(spec.problems.checked_by))
    return put_record(store, keys.evaluation(spec.name), measure_run(store, spec.name, checker))
