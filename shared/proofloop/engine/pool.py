"""The engines of a process: one for each [engine] section that its runs name, opened when first needed."""

from __future__ import annotations

import threading
from pathlib import Path

from proofloop.engine import ON_SERVERS, open_engine
from proofloop.engine.base import ChatMessage, Engine, GenerationRequest, prepare
from proofloop.engine.trial import check_taken
from proofloop.errors import CallRefused, ConfigError, EngineError
from proofloop.models import is_beside_run_file, version_folder
from proofloop.prompts import load_pack
from proofloop.records import MODEL_ROLES, Sampling
from proofloop.runspec import RunSpec
from proofloop.store import Store

FIRST_ANSWER_S = 600.0
"""How long the first answer of a model may take: it may still be loading."""


class Engines:
    """Safe to share between threads. `close` ends them all."""

    def __init__(self, store: Store, cache: Path) -> None:
        self._store, self._cache = store, cache
        self._lock = threading.Lock()
        self._open: dict[str, Engine] = {}

    def of(self, spec: RunSpec) -> Engine:
        """The engine of a run; runs with equal sections share it, unless models lie beside their run files.

        Raises ConfigError.
        """
        name = spec.engine.model_dump_json()
        if spec.engine.kind not in ON_SERVERS and any(is_beside_run_file(spec.model_of(role)) for role in MODEL_ROLES):
            name += str(spec.base)
        with self._lock:
            if name not in self._open:
                self._open[name] = open_engine(
                    spec.engine.kind,
                    spec.engine.settings,
                    lambda version: version_folder(self._store, self._cache, version, spec.base),
                )
            return self._open[name]

    def prepare(self, spec: RunSpec, version: str) -> None:
        """Make a version ready in the run's engine. Raises ConfigError."""
        try:
            prepare(self.of(spec), version)
        except EngineError as error:
            where = f"engine {spec.engine.kind!r} cannot load {version!r}: {error}"
            raise ConfigError(where, "the version that served before goes on serving") from error

    def check(self, spec: RunSpec, *, patience_s: float = FIRST_ANSWER_S) -> None:
        """Ask every model of the run for one token, each waited for so long, then begin a call as each role samples.

        Raises ConfigError for a model that cannot answer, that refuses its role's sampling, or that should be trained
        from answers without their tokens.
        """
        engine = self.of(spec)
        for version in dict.fromkeys(spec.model_of(role) for role in MODEL_ROLES):
            request = GenerationRequest(
                id=f"generator:check:{version}",
                model=version,
                messages=(ChatMessage("user", "Say yes."),),
                sampling=Sampling(max_tokens=1),
                seed=0,
            )
            try:
                answer = engine.submit(request).result(patience_s)
            except (EngineError, TimeoutError) as error:
                where = f"engine {spec.engine.kind!r} cannot answer with model {version!r}: {error}"
                raise ConfigError(where, "see [engine] and [models] in the run file, and `proofloop doctor`") from error
            if answer.tokens is None and version in map(spec.model_of, spec.training.roles):
                where = f"engine {spec.engine.kind!r} gives no token ids with log-probabilities for model {version!r}"
                raise ConfigError(where, "training needs both: ask the engine for them, or leave out [training]")

        pack = load_pack(spec.prompts, spec.base)
        for role in MODEL_ROLES:
            try:
                check_taken(engine, spec, pack, role, spec.model_of(role))
            except CallRefused as error:
                where = f"engine {spec.engine.kind!r} refuses the calls of the {role}: {error}"
                raise ConfigError(where, "change what it complains of") from error
            except EngineError:
                continue  # it has answered just now: this will pass

    def close(self) -> None:
        for engine in self._open.values():
            engine.close()
