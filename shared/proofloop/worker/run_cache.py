"""A worker's cache of runs: a message needs few reads of the store.

A run's spec and the served versions may change, so they are read again after a moment. Prompts,
problems and judgements never change.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import lru_cache

import structlog

from proofloop.config.run_file import RunSpec
from proofloop.errors import StoreError
from proofloop.method.prompts import PromptPack, Reader
from proofloop.runs.model_registry import last_served
from proofloop.runs.spec import get_spec
from proofloop.schema import keys
from proofloop.schema.records import ModelRole, Problem, Proof
from proofloop.store import Store, get_record
from proofloop.worker.undecided_proofs import UndecidedProofs

log = structlog.get_logger()

SERVED_CACHE_S = 0.5
"""How long a worker may use a version after another was put in service."""

SPEC_CACHE_S = 5.0
"""How long a worker may use a run's spec after the run was resumed with another."""

RUNS_KEPT = 64
"""The most runs whose specs a worker remembers."""

PROOFS_KEPT = 512
"""Twice the proofs that wait for their labels by default; each is read for every critique."""


class RunCache:
    """Safe to share between threads. `on_engine_moved` is called with a run whose engine changed.
    `is_alone`: no other process works on these runs.

    While one thread reads a spec or version again, the others use the cached one.
    """

    def __init__(
        self,
        store: Store,
        on_engine_moved: Callable[[str], None] = lambda run_id: None,
        *,
        is_alone: bool = False,
    ) -> None:
        self._store = store
        self._on_engine_moved = on_engine_moved
        self._specs: dict[str, tuple[float, RunSpec]] = {}
        self._reading_spec = threading.Lock()
        self._served: dict[tuple[str, ModelRole], tuple[float, str]] = {}
        self._reading_served = threading.Lock()
        self.pack = lru_cache(maxsize=64)(self._load_pack)
        self.problem = lru_cache(maxsize=1024)(self._load_problem)
        # not in a service: a run may be deleted meanwhile, and posed again under the same name
        cached = lru_cache(maxsize=PROOFS_KEPT)(self._load_proof)
        self.proof = cached if is_alone else self._load_proof
        self.undecided = UndecidedProofs(store, is_alone=is_alone)

    def spec(self, run_id: str) -> RunSpec:
        """The run's spec; the cached one while the store is unavailable, because paid answers must
        be read.
        """
        known = self._specs.get(run_id)
        if known is not None and time.monotonic() - known[0] < SPEC_CACHE_S:
            return known[1]
        if not self._reading_spec.acquire(blocking=known is None):
            assert known is not None
            return known[1]
        try:
            return self._read_spec(run_id)
        finally:
            self._reading_spec.release()

    def _read_spec(self, run_id: str) -> RunSpec:
        known = self._specs.get(run_id)
        if known is not None and time.monotonic() - known[0] < SPEC_CACHE_S:
            return known[1]
        try:
            spec = get_spec(self._store, run_id)
        except StoreError:
            if known is None:
                raise
            spec = known[1]
        if known is not None and spec.engine != known[1].engine:
            log.info("engine_moved", run=run_id)
            self._on_engine_moved(run_id)
        self._specs.pop(run_id, None)  # the newest run stands last, the oldest is dropped
        self._specs[run_id] = (time.monotonic(), spec)
        if len(self._specs) > RUNS_KEPT:
            self._specs.pop(next(iter(self._specs)))
        return spec

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

    def _load_pack(self, run_id: str) -> PromptPack:
        return get_record(self._store, keys.prompts(run_id), PromptPack)

    def _load_proof(self, run_id: str, proof_id: str) -> Proof:
        return get_record(self._store, keys.proof(run_id, proof_id), Proof)

    def _load_problem(self, run_id: str, problem_id: str) -> Problem:
        return get_record(self._store, keys.problem(run_id, problem_id), Problem)
