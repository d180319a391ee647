"""What every stage works with: the curriculum, the store, the engine, problems, the experts, and
who to tell.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from proofloop.config.curriculum_file import CurriculumSpec
from proofloop.config.given_files import GradedAnalysis, GradedProof
from proofloop.config.run_file import Models, RunEngine, RunSpec
from proofloop.config.run_problems import Problems, Split
from proofloop.config.run_training import RoleTraining, Training
from proofloop.engine.base import Engine
from proofloop.method.domains import Domain
from proofloop.method.prompts import PromptPack
from proofloop.pipeline.driver import Interrupted
from proofloop.runs.model_registry import MANIFEST, version_folder
from proofloop.schema import keys
from proofloop.schema.records import ModelRole, Sampling, derive_seed
from proofloop.store import R, Store, find_record, put_record
from proofloop.worker.engine_pool import Engines
from proofloop_trainer.curriculum.asking import Asker
from proofloop_trainer.curriculum.cases import CaseFile
from proofloop_trainer.curriculum.kept import Kept
from proofloop_trainer.curriculum.rollouts import Judges

TRAIN: Split = "train"
VALIDATION: Split = "validation"
TEST: Split = "test"


@dataclass(frozen=True)
class Grades:
    """D_v and D_mv as people graded them."""

    proofs: tuple[GradedProof, ...]
    analyses: tuple[GradedAnalysis, ...]


@dataclass(frozen=True)
class Work:
    """The surroundings of a stage. `grades`: what people graded; None where the domain's checker
    plays the experts.

    `stage` is its name.
    """

    spec: CurriculumSpec
    store: Store
    engines: Engines
    domain: Domain
    harder: Domain | None
    grades: Grades | None
    pack: PromptPack
    cache: Path
    stopping: threading.Event
    say: Callable[[str], None]
    stage: str

    def asker(self, role: ModelRole, version: str, *purpose: object) -> Asker:
        """A model to ask; what it answers depends on the purpose, and on nothing else that
        changes.
        """
        sampling = Sampling(**dict(getattr(self.spec.sampling, role)))
        seed = derive_seed(self.spec.seed, *purpose)
        return Asker(self.engine, role, version, sampling, seed, self.stopping, self.kept)

    def judges(self, served: Mapping[ModelRole, str], *purpose: object) -> Judges:
        """The learned judges in service."""
        return Judges(
            verifier=self.asker("verifier", served["verifier"], *purpose),
            meta=self.asker("meta_verifier", served["meta_verifier"], *purpose),
            pack=self.pack,
            critiques=self.spec.generator.critiques,
            metas=self.spec.generator.metas,
        )

    @cached_property
    def kept(self) -> Kept:
        """The answers that the stage has not made anything of yet."""
        prefix = keys.answers(self.spec.name, self.stage)
        return Kept(self.store, prefix, lambda text: self.say(f"{self.stage}: {text}"))

    @cached_property
    def run_spec(self) -> RunSpec:
        """The curriculum as a run that trains: what its engine must be able to do."""
        start = self.spec.start
        return RunSpec(
            name=self.spec.name,
            problems=self.problems(self.domain, TRAIN, 1),
            prompts=self.spec.prompts,
            engine=RunEngine(**dict(self.spec.engine)),
            sampling=self.spec.sampling,
            models=Models(generator=start, verifier=start, meta_verifier=start),
            training=Training(verifier=RoleTraining(steps=1)),
            base=self.spec.base,
        )

    @property
    def engine(self) -> Engine:
        return self.engines.of(self.run_spec, "verifier")

    def problems(self, domain: Domain, split: Split, count: int, proofs: int = 1) -> Problems:
        """A run's section for problems of this domain, which may be the file's."""
        source = {"file": self.spec.files.problems} if self.spec.files else {"domain": domain.name}
        return Problems.model_validate(
            {**source, "split": split, "count": count, "proofs_per_problem": proofs}
        )

    def rng(self, *purpose: object) -> random.Random:
        return random.Random(derive_seed(self.spec.seed, *purpose))

    def domains(self, iteration: int) -> list[Domain]:
        """What an iteration poses its problems from, each as often as the others."""
        return [self.domain, self.harder] if self.harder and iteration > 1 else [self.domain]

    def questions(
        self,
        count: int,
        split: Split = TRAIN,
        first: int = 0,
        domains: Sequence[Domain] | None = None,
    ) -> list[str]:
        """Problems of the domain, or of these in turn; `first`: how many of the split to pass
        over.
        """
        sources = domains or [self.domain]
        return [
            sources[index % len(sources)].pose(index, split=split, seed=self.spec.seed).question
            for index in range(first, first + count)
        ]

    def cases(self, name: str, draw: Callable[[], CaseFile]) -> CaseFile:
        """The data set of that name: drawn once, then read."""
        return self.once(name, CaseFile, draw)

    def once(self, name: str, kind: type[R], make: Callable[[], R]) -> R:
        """What a stage draws or asks for under that name: made once, whatever interrupts it, then
        read.
        """
        key = keys.cases(self.spec.name, name)
        if (found := find_record(self.store, key, kind)) is not None:
            return found
        made = put_record(self.store, key, make(), durable=True)
        self.kept.clear()
        return made

    def folder(self, version: str) -> Path:
        return version_folder(self.store, self.cache, version, self.spec.base)

    def weights(self, version: str) -> Path:
        """The folder that training goes on from: the version's weights before rounding, where they
        were kept.
        """
        kept = keys.weights(version)
        return self.folder(
            kept if kept != version and self.store.exists(f"{kept}/{MANIFEST}") else version
        )

    def check_stopping(self) -> None:
        if self.stopping.is_set():
            raise Interrupted("asked to stop")
