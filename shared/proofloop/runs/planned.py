"""The proofs that a run's spec plans, and how far the run is.

The spec alone plans a run: the same problems and proof ids each time. A resumed run therefore poses
the proofs without a label, and each step finds what it already stored.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping

from proofloop.config.given_files import given_cases
from proofloop.config.problem_file import count_problems, problems_of
from proofloop.config.run_file import RunSpec
from proofloop.runs.given import cases_of
from proofloop.runs.model_registry import newest_step, published_versions
from proofloop.runs.search.records import refinements_posed, searches_of
from proofloop.schema import keys
from proofloop.schema.events import ProblemPosed
from proofloop.schema.ids import proof_id
from proofloop.schema.records import (
    ALL_ROLES,
    PIPELINE_ROLES,
    ModelRole,
    Problem,
    Role,
    TrainingStep,
)
from proofloop.store import Store, put_new, records_below


def roles_of(spec: RunSpec) -> tuple[Role, ...]:
    """The roles that the run needs."""
    if spec.fine_tuning:
        return ("trainer",)
    if spec.only_checks:  # nor does such a run train
        return ("generator", "labeler")
    roles = PIPELINE_ROLES[PIPELINE_ROLES.index(spec.problems.first_role) :]
    return (*roles, "trainer") if spec.training.roles else roles


def planned(spec: RunSpec, store: Store) -> Iterator[ProblemPosed]:
    """The first proofs of every problem, in order. Each problem is stored before its proofs."""
    for problem in problems_of(spec):
        keep_problem(store, spec, problem)
        yield from first_proofs(spec, problem.id)


def keep_problem(store: Store, spec: RunSpec, problem: Problem) -> bool:
    """Store a problem of the run; false if it was stored before. Safe to repeat."""
    return put_new(store, keys.problem(spec.name, problem.id), problem)


def first_proofs(spec: RunSpec, problem_id: str) -> Iterator[ProblemPosed]:
    """The proofs of a problem before any search."""
    for number in range(spec.problems.proofs_per_problem):
        yield ProblemPosed(
            run_id=spec.name,
            problem_id=problem_id,
            proof_id=proof_id(problem_id, number),
            group=problem_id,
        )


def planned_proofs(spec: RunSpec, store: Store | None = None) -> int:
    """The number of the run's proofs, before any search. Given cases are counted in the store, or
    in their file if no store is given.
    """
    if not spec.problems.is_given:
        return count_problems(spec) * spec.problems.proofs_per_problem if _has_problems(spec) else 0
    cases = given_cases(spec) if store is None else cases_of(store, spec.name)
    return sum(spec.problems.proofs_per_problem if case.solution is None else 1 for case in cases)


def _has_problems(spec: RunSpec) -> bool:
    return spec.fine_tuning is None


def posed_proofs(store: Store, spec: RunSpec) -> int:
    """The number of requested proofs, those of searches included."""
    return planned_proofs(spec, store) + refinements_posed(store, spec)


def labeled_and_posed(store: Store, spec: RunSpec) -> tuple[int, int]:
    """The number of proofs with a label, and of requested proofs, searches included."""
    labeled = sum(1 for _ in store.list(keys.labels(spec.name)))
    return labeled, posed_proofs(store, spec)


def is_complete(store: Store, spec: RunSpec) -> bool:
    """Whether every proof has its label and every search has ended, or the supervised training has
    made its model. Raises ConfigError without the run's problem file.
    """
    if spec.fine_tuning:
        return is_fine_tuned(store, spec)
    if spec.search.rounds and sum(1 for _ in searches_of(store, spec.name)) < count_problems(spec):
        return False
    labeled, posed = labeled_and_posed(store, spec)
    return labeled >= posed


def steps_taken(store: Store, spec: RunSpec) -> dict[str, int]:
    """The number of each trained role's newest complete version."""
    return {role: newest_step(store, spec.name, role) for role in spec.training.roles}


def steps_of(store: Store, run_id: str, roles: Iterable[str]) -> dict[str, list[TrainingStep]]:
    """The recorded training steps of these roles."""
    return {
        role: list(records_below(store, keys.steps(run_id, role), TrainingStep)) for role in roles
    }


def is_fine_tuned(store: Store, spec: RunSpec) -> bool:
    """Whether the model of the run's supervised training is complete."""
    return bool(published_versions(store, spec.name, ALL_ROLES))


def supervised_steps(store: Store, run_id: str) -> int:
    """The number of the last recorded step of the run's supervised training, which does not record
    each; 0 if it has none.
    """
    last = deque(store.list(keys.steps(run_id, ALL_ROLES)), maxlen=1)
    return int(keys.name_of(last[0])) if last else 0


def owes_steps(store: Store, spec: RunSpec, problems: int, steps: Mapping[str, int]) -> bool:
    """Whether a role will take another step, once this many problems have all their labels."""
    return any(
        steps.get(role, 0) < min(spec.training.of(role).steps, batches)
        for role, batches in _batches(store, spec, problems).items()
    )


def _batches(store: Store, spec: RunSpec, problems: int) -> dict[ModelRole, int]:
    """The number of batches that this many problems make for each role, less the problems that it
    skips.
    """
    return {
        role: (problems - sum(1 for _ in store.list(keys.skipped_problems(spec.name, role))))
        // spec.training.problems
        for role in spec.training.roles
    }


def is_training(store: Store, spec: RunSpec) -> bool:
    """Whether a step has begun and not ended: its batch is stored first, its version last."""
    for role, steps in steps_taken(store, spec).items():
        batches = sum(1 for _ in store.list(keys.batches(spec.name, role)))
        if batches > steps:
            return True
    return False
