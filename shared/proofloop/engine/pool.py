"""The engines of a process: one for each [engine] section that its runs name, opened when first needed."""

from __future__ import annotations

import threading
from pathlib import Path

from proofloop.engine import ON_SERVERS, open_engine
from proofloop.engine.base import (
    ALL_IN_REASONING,
    LARGEST_SEED,
    ChatMessage,
    Engine,
    Generation,
    GenerationRequest,
    prepare,
)
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
                seed=LARGEST_SEED,
            )
            try:
                answer = engine.submit(request).result(patience_s)
            except TimeoutError as error:
                where = f"engine {spec.engine.kind!r} has not answered with model {version!r} within {patience_s:g} s"
                raise ConfigError(where, "is the model still loading?") from error
            except EngineError as error:
                where = f"engine {spec.engine.kind!r} cannot answer with model {version!r}: {error.problem}"
                raise ConfigError(where, error.hint or "see [engine] and [models] in the run file") from error
            if answer.tokens is None and version in map(spec.model_of, spec.training.roles):
                where = f"engine {spec.engine.kind!r} gives no token ids with log-probabilities for model {version!r}"
                raise ConfigError(where, "training needs both: ask the engine for them, or leave out [training]")

        pack = load_pack(spec.prompts, spec.base)
        for role in MODEL_ROLES:
            try:
                taken = check_taken(engine, spec, pack, role, spec.model_of(role))
            except CallRefused as error:
                where = f"engine {spec.engine.kind!r} refuses the calls of the {role}: {error.problem}"
                raise ConfigError(where, error.hint or "change what it complains of") from error
            except EngineError:
                continue  # it has answered just now: this will pass
            if taken is not None:
                _check_has_text(taken, role)

    def close(self) -> None:
        for engine in self._open.values():
            engine.close()


def _check_has_text(answer: Generation, role: str) -> None:
    """Raises ConfigError for an answer that ended with thinking alone: no proof and no critique could be read."""
    if answer.finish_reason == "stop" and answer.reasoning and not answer.text.strip():
        problem = f"the {role}'s answer has {len(answer.reasoning)} characters of reasoning and no content"
        raise ConfigError(problem, ALL_IN_REASONING)
