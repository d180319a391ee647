"""Labels for new proofs by the pipeline itself: the generator proves, the judges criticise, the
labeling rule decides.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import product

from proofloop.config.curriculum_file import ENGINE_MEMORY, Labels
from proofloop.config.given_files import GradedProof
from proofloop.config.run_file import Models, RunSpec
from proofloop.config.run_problems import Split
from proofloop.curriculum.status import manifests, serving_before
from proofloop.method.domains import Domain
from proofloop.pipeline.embedded import EmbeddedPipeline
from proofloop.runs.create import create_run
from proofloop.runs.labels import labels_of
from proofloop.runs.progress import RunProgress
from proofloop.schema import keys
from proofloop.schema.records import ModelRole, Problem, Proof
from proofloop.store import get_record
from proofloop_trainer.curriculum.cases import CaseFile
from proofloop_trainer.curriculum.kept import EVERY_S
from proofloop_trainer.curriculum.work import Work

Served = dict[ModelRole, str]


def label_proofs(work: Work, iteration: int, served: Served) -> list[GradedProof]:
    """Pose new problems of the kinds that come next, and keep the decided proofs with their labels;
    each once.
    """

    def draw() -> CaseFile:
        writers = {served["generator"]: ""}
        if work.spec.labels.earlier:
            before = serving_before(
                work.spec, manifests(work.store, work.spec), f"{iteration}-generator"
            )
            writers.setdefault(before["generator"], "-earlier")
        found = dict[GradedProof, None]()
        for domain, (writer, which) in product(work.domains(iteration + 1), writers.items()):
            run = f"{work.spec.name}-{iteration}-label-{domain.name}{which}"
            label_run(
                work,
                run,
                {**served, "generator": writer},
                work.spec.labels,
                domain,
                "train",
                1_000 + iteration,
            )
            found |= dict.fromkeys(decided(work, run))
        return CaseFile(proofs=tuple(found))

    return list(work.cases(_name(iteration), draw).proofs)


def labeled_proofs(work: Work, iteration: int) -> list[GradedProof]:
    """The labeled proofs of this and all earlier iterations."""
    files = (work.cases(_name(number), CaseFile) for number in range(1, iteration + 1))
    return [proof for file in files for proof in file.proofs]


def label_run(
    work: Work, name: str, served: Served, wanted: Labels, domain: Domain, split: Split, seed: int
) -> None:
    """Take every proof of a small run through the whole pipeline. Safe to repeat after an end.

    What memory the engine uses may have changed by then: it is the curriculum's engine, and not
    said in the run.
    """
    engine = work.spec.engine.model_dump()
    engine["settings"] = {
        name: value for name, value in engine["settings"].items() if name not in ENGINE_MEMORY
    }
    spec = RunSpec.model_validate(
        {
            "name": name,
            "seed": work.spec.seed + seed,
            "prompts": work.spec.prompts,
            "reading": "strict",
            "problems": work.problems(domain, split, wanted.problems, wanted.proofs_per_problem),
            "engine": engine,
            "models": Models(**served),
            "sampling": work.spec.sampling,
            "labeling": wanted.rule,
            "flow": {
                "max_waiting_proofs": 256,
                "generator": 128,
                "verifier": 256,
                "meta_verifier": 192,
            },
            "base": work.spec.base,
        }
    )
    create_run(work.store, spec, resume=True, pack=work.pack)
    with EmbeddedPipeline(
        work.store, work.engines, spec, stopping=work.stopping, engine=work.engine
    ) as pipeline:
        pipeline.run(_teller(work, name))


def _teller(work: Work, name: str) -> Callable[[RunProgress], None]:
    """Says now and then how many proofs have their label."""
    said = time.monotonic()

    def tell(progress: RunProgress) -> None:
        nonlocal said
        if time.monotonic() - said > EVERY_S:
            said = time.monotonic()
            work.say(f"{name}: {progress.labeled}/{progress.planned} proofs labeled")

    return tell


def decided(work: Work, run: str) -> list[GradedProof]:
    """The run's proofs that got a score."""
    found = []
    for label in labels_of(work.store, run):
        if label.score is not None:
            proof = get_record(work.store, keys.proof(run, label.proof_id), Proof)
            question = get_record(work.store, keys.problem(run, label.problem_id), Problem).question
            found.append(
                GradedProof(
                    question=question, solution=proof.solution, score=label.score, by=label.by
                )
            )
    return found


def _name(iteration: int) -> str:
    return f"labels-{iteration}"
