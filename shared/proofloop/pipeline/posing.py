"""Poses the proofs of a run: a problem at the generator, a given proof at the verifier, a given
analysis at the meta-verifier.

Given material is stored first, then announced by the event that the role before would have sent.
Model versions are named here for roles in training: each case meets the version that it is planned
for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from proofloop.config.problem_file import problems_of
from proofloop.config.run_file import RunSpec
from proofloop.method.critique_window import first_critiques
from proofloop.method.prompts import Reader
from proofloop.runs.given import cases_of
from proofloop.runs.planned import first_proofs
from proofloop.schema import keys
from proofloop.schema.events import Event, ProblemPosed, ProofReviewed, ProofWritten
from proofloop.schema.given import GivenCase
from proofloop.schema.ids import proof_id
from proofloop.schema.records import (
    NOT_SAMPLED,
    Critique,
    Given,
    ModelRole,
    Problem,
    Proof,
    Verdict,
)
from proofloop.store import Store, put_record
from proofloop.worker.run_cache import RunCache


@dataclass(frozen=True)
class Entry:
    """A proof before it is posed. `events` stores the given material and returns the first events.
    `posed`: the event for the generator, if it writes the proof.
    """

    proof_id: str
    events: Callable[[], Sequence[Event]]
    posed: ProblemPosed | None = None

    @classmethod
    def of(cls, event: ProblemPosed) -> Entry:
        return cls(event.proof_id, lambda: [event], event)


Steps = Callable[[], Mapping[str, int]]
"""How many steps each role in training has taken."""


class Posing:
    """The problems and proofs of a run, in order."""

    def __init__(self, store: Store, spec: RunSpec, steps: Steps) -> None:
        self._store = store
        self._spec = spec
        self._steps = steps
        self._runs = RunCache(store)

    def problems(self) -> Iterator[tuple[Problem, list[Entry]]]:
        """Each problem with its first proofs."""
        if not self._spec.problems.is_given:
            for number, problem in enumerate(problems_of(self._spec)):
                yield problem, list(self._to_prove(number, problem))
            return
        for number, case in enumerate(cases_of(self._store, self._spec.name)):
            problem = case.problem(number)
            if case.solution is None:
                yield problem, list(self._to_prove(number, problem))
            else:
                name = proof_id(problem.id, 0)
                yield problem, [Entry(name, partial(self._enter, number, problem, case))]

    def _to_prove(self, number: int, problem: Problem) -> Iterator[Entry]:
        for event in first_proofs(self._spec, problem.id):
            yield Entry(event.proof_id, partial(self._pose, number, event), event)

    def _pose(self, number: int, event: ProblemPosed) -> list[Event]:
        """Pose one proof. With `ahead` above 1 the generator takes the version in service, which
        will be newer than the present one.
        """
        training = self._spec.training
        if "generator" not in training.roles or training.ahead > 1:
            return [event]
        version = self._version("generator", number)
        return [event.model_copy(update={"generator_version": version})]

    def _enter(self, number: int, problem: Problem, case: GivenCase) -> list[Event]:
        assert case.solution is not None
        run, given = self._spec.name, case.given or Given()
        proof = Proof(
            id=proof_id(problem.id, 0),
            run_id=run,
            problem_id=problem.id,
            group=proof_id(problem.id, 0),
            solution=case.solution,
            self_analysis="",
            verdict=Verdict(outcome="valid"),
            provenance=NOT_SAMPLED,
            verifier_version=self._verifier_of(number, case),
            meta_verifier_version=self._meta_verifier_of(number, case),
            given=given.model_copy(update={"is_analysis": case.analysis is not None}),
        )
        # an interrupted run may have stored it with another version
        proof = put_record(self._store, keys.proof(run, proof.id), proof)
        if case.analysis is not None:
            critique = _critique(proof.id, case.analysis, self._reader())
            put_record(self._store, keys.critique(run, proof.id, 0), critique)
            return [ProofReviewed(run_id=run, proof_id=proof.id, index=0)]
        return [
            ProofWritten(
                run_id=run, proof_id=proof.id, index=i, verifier_version=proof.verifier_version
            )
            for i in range(self._critiques(given))
        ]

    def _reader(self) -> Reader:
        return self._runs.pack(self._spec.name).reader("strict")

    def _critiques(self, given: Given) -> int:
        """The critiques to request: all n of a graded proof, because they are not needed for a
        label but for themselves.
        """
        rule = self._spec.labeling
        by_need = self._spec.stops_when_decided and given.score is None
        return first_critiques(n=rule.n, k=rule.k) if by_need else rule.n

    def _verifier_of(self, number: int, case: GivenCase) -> str:
        if "verifier" in self._spec.training.roles:
            return self._version("verifier", number)
        return case.verifier_version or self._runs.serving(self._spec.name, "verifier")

    def _meta_verifier_of(self, number: int, case: GivenCase) -> str:
        """The meta-verifier of a given analysis: the model that learns from it."""
        learner = self._spec.training.learner_of_analyses
        if learner == "meta_verifier" or (learner and case.analysis is not None):
            return self._version(learner, number)
        return case.meta_verifier_version

    def _version(self, role: ModelRole, number: int) -> str:
        return version_of(self._spec, role, number, self._steps())


def version_of(spec: RunSpec, role: ModelRole, number: int, steps: Mapping[str, int]) -> str:
    """The version of a role in training for problem number `number`, after so many steps of each
    role. With `ahead = 1` it is the version after the steps of all earlier problems, even if a
    resumed run has taken more; else the newest.
    """
    wanted, taken = spec.training.of(role), steps.get(role, 0)
    if spec.training.ahead == 1:
        due = number // spec.training.problems - wanted.begin
        taken = min(taken, max(0, due))
    return keys.model(spec.name, role, taken) if taken else spec.model_of(role)


def _critique(proof: str, analysis: str, reader: Reader) -> Critique:
    """A given analysis, with the score that it states."""
    score = reader.evaluation(analysis, "stop").verdict.score
    return Critique(
        proof_id=proof,
        index=0,
        analysis=analysis,
        verdict=Verdict(outcome="valid", score=score),
        provenance=NOT_SAMPLED,
    )
