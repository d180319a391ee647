"""`proofloop runs measure` and `search`: the figures of the exact checker, and the results of
searches.
"""

from __future__ import annotations

from proofloop.cli.common import (
    JsonOption,
    RunArgument,
    StoreOption,
    emit,
    need_run,
    open_store,
)
from proofloop.config.run_file import RunSpec
from proofloop.errors import ConfigError
from proofloop.method.domains import Checker
from proofloop.runs.figures import (
    Figure,
    evaluate_run,
    measuring_checker,
    meta_verifier_accuracy,
    refinement_figures,
    search_figures,
)
from proofloop.runs.search.records import searches_of
from proofloop.store import Store


def measure(run: RunArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Measure a run with the exact checker of its domain, or by the grades of its given proofs and
    analyses. Refinement and search are measured step by step.
    """
    data = open_store(store, must_exist=True)
    spec = need_run(data, run)
    checker = measuring_checker(spec)
    found: dict[str, Figure] = dict(evaluate_run(data, run, checker))
    found["meta_verifier_accuracy"] = meta_verifier_accuracy(data, run, checker)
    found |= _step_figures(data, spec, checker) if checker else {}
    emit(
        [{"figure": name, **figure.model_dump()} for name, figure in found.items()], as_json=as_json
    )


def _step_figures(data: Store, spec: RunSpec, checker: Checker) -> dict[str, Figure]:
    """The figures after each attempt of a refinement, and after each round of a search."""
    run = spec.name
    found: dict[str, Figure] = {}
    if spec.refinement.iterations > 1:
        refined = refinement_figures(data, run, checker, spec.refinement.iterations)
        found |= {
            f"pass_at_1 after {number} attempts": f for number, f in enumerate(refined.pass_at_1, 1)
        }
        found[f"best of {spec.problems.proofs_per_problem} by self-score"] = (
            refined.best_by_self_score
        )
    if spec.search.rounds:
        rounds = enumerate(search_figures(data, run, checker))
        found |= {
            f"best proof after {number} rounds of search": figure for number, figure in rounds
        }
    return found


def search(run: RunArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Show the ended searches of a run.

    For each problem: the rounds, the proofs and the best proof. `solved`: whether the best proof
    passed all n critiques.
    """
    data = open_store(store, must_exist=True)
    if not need_run(data, run).search.rounds:
        raise ConfigError(
            f"run {run!r} has no search", "set [search] rounds above 0 in the run file"
        )
    rows = [
        {
            "problem": found.problem_id,
            "solved": found.solved,
            "score": found.score,
            "rounds": len(found.best_by_round) - 1,
            "proofs": found.proofs,
            "best": found.best,
        }
        for found in searches_of(data, run)
    ]
    emit(rows, as_json=as_json, title="ended searches")
