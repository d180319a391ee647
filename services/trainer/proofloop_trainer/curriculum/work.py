"""What every stage works with: the curriculum, the store, the engine, the domain, and who to tell."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from proofloop import keys
from proofloop.curriculum import CurriculumSpec
from proofloop.domains import Domain
from proofloop.engine.base import Engine
from proofloop.engine.pool import Engines
from proofloop.models import version_folder
from proofloop.prompts import PromptPack
from proofloop.records import ModelRole, Sampling, derive_seed
from proofloop.runspec import Models, Problems, RunSpec
from proofloop.store import Store, find_record, put_record
from proofloop.walk import Interrupted
from proofloop_trainer.curriculum.asking import Asker
from proofloop_trainer.curriculum.cases import CaseFile

_NAMED = Models(generator="", verifier="", meta_verifier="")
VALIDATION, TEST = "validation", "test"


@dataclass(frozen=True)
class Work:
    """The surroundings of a stage."""

    spec: CurriculumSpec
    store: Store
    engines: Engines
    domain: Domain
    harder: Domain | None
    pack: PromptPack
    cache: Path
    stopping: threading.Event
    say: Callable[[str], None]

    def asker(self, role: ModelRole, version: str, *purpose: object) -> Asker:
        """A model to ask; what it answers depends on the purpose, and on nothing else that changes."""
        sampling = Sampling(**dict(getattr(self.spec.sampling, role)))
        seed = derive_seed(self.spec.seed, *purpose)
        return Asker(self.engine, role, version, sampling, seed, self.stopping)

    @property
    def engine(self) -> Engine:
        return self.engines.of(
            RunSpec(
                name=self.spec.name,
                problems=Problems(domain=self.domain.name),
                engine=self.spec.engine,
                models=_NAMED,
                base=self.spec.base,
            )
        )

    def rng(self, *purpose: object) -> random.Random:
        return random.Random(derive_seed(self.spec.seed, *purpose))

    def domains(self, iteration: int) -> list[Domain]:
        """What an iteration poses its problems from, each as often as the others."""
        return [self.domain, self.harder] if self.harder and iteration > 1 else [self.domain]

    def questions(
        self, count: int, split: str = "train", first: int = 0, domains: Sequence[Domain] | None = None
    ) -> list[str]:
        """Problems of the domain, or of these in turn; `first`: how many of the split to pass over."""
        sources = domains or [self.domain]
        return [
            sources[index % len(sources)].pose(index, split=split, seed=self.spec.seed).question
            for index in range(first, first + count)
        ]

    def cases(self, name: str, draw: Callable[[], CaseFile]) -> CaseFile:
        """The data set of that name: drawn once, then read."""
        key = keys.cases(self.spec.name, name)
        return find_record(self.store, key, CaseFile) or put_record(self.store, key, draw(), durable=True)

    def folder(self, version: str) -> Path:
        return version_folder(self.store, self.cache, version, self.spec.base)

    def check_stopping(self) -> None:
        if self.stopping.is_set():
            raise Interrupted("asked to stop")
