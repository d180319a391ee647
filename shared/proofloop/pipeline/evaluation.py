"""Evaluation before and after training: small runs on the test split, measured by the domain's
exact checker.

The verifiers before and after are compared on the *same* proofs, which the first generator wrote
before any training.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from proofloop.config.run_file import Models, RunSpec
from proofloop.config.run_file.labeling import Labeling
from proofloop.config.run_file.problems import Problems
from proofloop.config.run_file.training import Training
from proofloop.errors import ConfigError
from proofloop.method.domains import load_checker
from proofloop.pipeline.embedded import EmbeddedPipeline
from proofloop.runs.answers import proofs_and_questions
from proofloop.runs.create import create_run
from proofloop.runs.figures import Evaluation, evaluate_run
from proofloop.runs.progress import RunProgress
from proofloop.schema import keys
from proofloop.schema.given import GivenCase, GivenPortion
from proofloop.schema.records import MODEL_ROLES, Given, Record
from proofloop.store import Store, find_record, put_record
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


@dataclass(frozen=True)
class Evaluator:
    """Evaluates the models of a run with training. Both methods raise ConfigError if the run's
    problems have no exact checker.
    """

    spec: RunSpec
    store: Store
    engines: Engines
    size: EvalSize
    report: Report
    stopping: threading.Event

    def before(self) -> Evaluation:
        """Measure the models that the run begins with."""
        return self._measure(_eval_spec(self.spec, "before", self.spec.models, self.size))

    def after(self) -> Evaluation:
        """Measure the models in service at the end: the generator on new proofs, the verifier on
        those of `before`.
        """
        spec = self.spec
        runs = Tools(self.store, self.engines.of).runs
        served = Models(**{role: runs.serving(spec.name, role) for role in MODEL_ROLES})
        judging = _of_given(_eval_spec(spec, "after-verifier", served, self.size))
        given = GivenPortion(cases=tuple(_readable_proofs(self.store, f"{spec.name}-before")))
        verifier = self._measure(judging, [given])
        size = self.size.model_copy(update={"n": 1, "m": 1, "k": 1})
        generator = self._measure(_eval_spec(spec, "after-generator", served, size))
        return verifier.model_copy(
            update={"pass_at_1": generator.pass_at_1, "self_eval_error": generator.self_eval_error}
        )

    def _measure(self, spec: RunSpec, portions: Sequence[GivenPortion] = ()) -> Evaluation:
        found = find_record(self.store, keys.evaluation(spec.name), Evaluation)
        if found is not None:
            return found
        create_run(self.store, spec, resume=True, portions=portions)
        with EmbeddedPipeline(self.store, self.engines, spec, stopping=self.stopping) as pipeline:
            pipeline.run(lambda progress: self.report(spec.name, progress))
        assert spec.problems.checked_by is not None
        checker = load_checker(spec.problems.checked_by)
        figures = evaluate_run(self.store, spec.name, checker)
        return put_record(self.store, keys.evaluation(spec.name), figures)


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
        "lora": None,
    }
    return spec.model_copy(update=update)


def _of_given(spec: RunSpec) -> RunSpec:
    """The same for given proofs of the domain."""
    given = Problems(material=True, has_proofs=True, checker=spec.problems.domain)
    return spec.model_copy(update={"problems": given})


def _readable_proofs(store: Store, run_id: str) -> Iterator[GivenCase]:
    """The proofs of a run as cases of another."""
    for proof, question in proofs_and_questions(store, run_id):
        if proof.verdict.outcome == "valid":
            origin = Given(origin=f"{run_id}/{proof.id}")
            yield GivenCase(question=question, solution=proof.solution, given=origin)
