"""A worker's cache of runs: a message needs few reads of the store.

A run's spec and the served versions may change, so they are read again after a moment. Prompts,
problems, proofs and judgements never change, but a run may be deleted, and created again under the
same name.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import structlog

from proofloop.config.run_file import RunSpec
from proofloop.errors import StoreError
from proofloop.method.prompts import PromptPack, Reader
from proofloop.runs.model_registry import last_served
from proofloop.runs.spec import find_creation, get_spec
from proofloop.schema import keys
from proofloop.schema.records import ModelRole, Problem, Proof
from proofloop.store import Store, get_record
from proofloop.worker.undecided_proofs import UndecidedProofs

log = structlog.get_logger()

SERVED_CACHE_S = 0.5
"""How long a worker may use a version after another was put in service."""

SPEC_CACHE_S = 5.0
"""How long a worker may use a run's spec after the run was resumed with another, and its spec,
prompts and questions after it was deleted and created again.
"""

RUNS_KEPT = 64
"""The most runs whose specs and prompts a worker remembers."""

PROBLEMS_KEPT = 1024

PROOFS_KEPT = 512
"""Twice the proofs that wait for their labels by default; each is read for every critique."""


class _Known(NamedTuple):
    """A run's spec and creation. `at_s`: when they were read, in seconds of the monotonic clock."""

    at_s: float
    spec: RunSpec
    creation: str

    @property
    def is_fresh(self) -> bool:
        return time.monotonic() - self.at_s < SPEC_CACHE_S


class RunCache:
    """Safe to share between threads. `on_engine_moved` is called with a run whose engine changed,
    `on_created_again` with one that was deleted and created again. `is_alone`: no other process
    works on these runs.

    While one thread reads a spec or version again, the others use the cached one.
    """

    def __init__(
        self,
        store: Store,
        on_engine_moved: Callable[[str], None] = lambda run_id: None,
        *,
        on_created_again: Callable[[str], None] = lambda run_id: None,
        is_alone: bool = False,
    ) -> None:
        self._store = store
        self._on_engine_moved = on_engine_moved
        self._on_created_again = on_created_again
        self._specs: dict[str, _Known] = {}
        self._reading_spec = threading.Lock()
        self._served: dict[tuple[str, ModelRole], tuple[float, str]] = {}
        self._reading_served = threading.Lock()
        self._packs = lru_cache(maxsize=RUNS_KEPT)(self._load_pack)
        self._problems = lru_cache(maxsize=PROBLEMS_KEPT)(self._load_problem)
        # not in a service: a run may be deleted meanwhile, and posed again under the same name
        proofs = lru_cache(maxsize=PROOFS_KEPT)(self._load_proof)
        self.proof = proofs if is_alone else self._load_proof
        self.undecided = UndecidedProofs(store, is_alone=is_alone)

    def spec(self, run_id: str) -> RunSpec:
        """The run's spec; the cached one while the store is unavailable, because paid answers must
        be read.
        """
        return self._known(run_id).spec

    def pack(self, run_id: str) -> PromptPack:
        """The run's prompts. Raises StoreError."""
        return self._packs(run_id, self._known(run_id).creation)

    def problem(self, run_id: str, problem_id: str) -> Problem:
        """Raises StoreError."""
        return self._problems(run_id, problem_id, self._known(run_id).creation)

    def _known(self, run_id: str) -> _Known:
        known = self._specs.get(run_id)
        if known is not None and known.is_fresh:
            return known
        if not self._reading_spec.acquire(blocking=known is None):
            assert known is not None
            return known
        try:
            return self._read_spec(run_id)
        finally:
            self._reading_spec.release()

    def _read_spec(self, run_id: str) -> _Known:
        known = self._specs.get(run_id)
        if known is not None and known.is_fresh:
            return known
        try:
            # the creation is stored first: one that is read later belongs to this spec or a newer
            spec, creation = get_spec(self._store, run_id), find_creation(self._store, run_id)
        except StoreError:
            if known is None:
                raise
            _, spec, creation = known
        if known is not None:
            self._tell_changes(run_id, known, spec, creation)
        self._specs.pop(run_id, None)  # the newest run stands last, the oldest is dropped
        self._specs[run_id] = now = _Known(time.monotonic(), spec, creation)
        if len(self._specs) > RUNS_KEPT:
            self._specs.pop(next(iter(self._specs)))
        return now

    def _tell_changes(self, run_id: str, known: _Known, spec: RunSpec, creation: str) -> None:
        if spec.engine != known.spec.engine:
            log.info("engine_moved", run=run_id)
            self._on_engine_moved(run_id)
        if creation != known.creation:
            log.info("run_created_again", run=run_id)
            self.undecided.forget_run(run_id)
            self._on_created_again(run_id)

    def reader(self, run_id: str) -> Reader:
        """The parser of the run's answers."""
        return self.pack(run_id).reader(self.spec(run_id).how_to_read)

    def serving(self, run_id: str, role: ModelRole) -> str:
        """The version of a role's model that is in service now."""
        name = (run_id, role)
        if not self._is_fresh(name) and self._reading_served.acquire(
            blocking=name not in self._served
        ):
            try:
                if not self._is_fresh(name):
                    self._served[name] = (time.monotonic(), self._read_served(run_id, role))
            finally:
                self._reading_served.release()
        return self._served[name][1]

    def _is_fresh(self, name: tuple[str, ModelRole]) -> bool:
        return name in self._served and time.monotonic() - self._served[name][0] < SERVED_CACHE_S

    def _read_served(self, run_id: str, role: ModelRole) -> str:
        return last_served(self._store, run_id, role) or self.spec(run_id).model_of(role)

    # `creation` is part of a cache's key: another creation may have other prompts and questions.

    def _load_pack(self, run_id: str, creation: str) -> PromptPack:
        return get_record(self._store, keys.prompts(run_id), PromptPack)

    def _load_proof(self, run_id: str, proof_id: str) -> Proof:
        return get_record(self._store, keys.proof(run_id, proof_id), Proof)

    def _load_problem(self, run_id: str, problem_id: str, creation: str) -> Problem:
        return get_record(self._store, keys.problem(run_id, problem_id), Problem)
