"""The engines of a process: one for each engine that its runs describe, opened at first use."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

import structlog

from proofloop.config.run_file import RunSpec
from proofloop.engine import get_engine, open_engine
from proofloop.engine.base import (
    ALL_IN_REASONING,
    LARGEST_SEED,
    Call,
    ChatMessage,
    Engine,
    Generation,
    GenerationRequest,
    prepare,
)
from proofloop.engine.endpoints import endpoint_engines
from proofloop.errors import CallRefused, ConfigError, EngineError, Interrupted, NotFound
from proofloop.method.prompts import PromptPack, load_pack
from proofloop.schema.records import MODEL_ROLES, ModelRole, Sampling
from proofloop.store import Store
from proofloop.store.model_folders import is_beside_run_file, require_model, version_folder
from proofloop.worker.calls.engine_trial import check_taken, one_token_request

log = structlog.get_logger()

IDLE_S = 24 * 3600.0
"""An engine without a new call for so long is closed when another one opens. The longest call takes
much less.
"""

FIRST_ANSWER_S = 600.0
"""How long the first answer of a model may take: it may still be loading."""

LOOK_S = 0.5
"""How often a check looks for a requested stop."""


NEEDS_TOKENS = (
    "training needs both: with engine openai set want_logprobs = true, send_schema = false, and"
    " temperature 1 and top_p 1 or the right logprobs_are; or leave out [training]"
)


class Engines:
    """Safe to share between threads. `close` ends them all."""

    def __init__(
        self, store: Store, cache: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store, self._cache, self._clock = store, cache, clock
        self._lock = threading.Lock()
        self._open: dict[str, Engine] = {}
        self._used_s: dict[str, float] = {}

    def of(self, spec: RunSpec, role: ModelRole) -> Engine:
        """The engine of a role. Roles and runs with equal engines share one, unless their models
        are beside their run files. Raises ConfigError.
        """
        section = spec.engine.of(role)
        name = section.model_dump_json()
        is_beside = any(is_beside_run_file(spec.model_of(role)) for role in MODEL_ROLES)
        if is_beside and not get_engine(section.kind).on_server:
            name += str(spec.base)
        with self._lock:
            self._used_s[name] = self._clock()
            if name not in self._open:
                self._close_idle()
                try:
                    self._open[name] = open_engine(
                        section.kind,
                        section.settings,
                        lambda version: version_folder(
                            self._store, self._cache, version, spec.base
                        ),
                    )
                except ConfigError as error:
                    problem = error.problem.replace(
                        "[engine]", f"[{spec.engine.table_of(role)}]", 1
                    )
                    raise ConfigError(problem, error.hint) from error.__cause__
            return self._open[name]

    def _close_idle(self) -> None:
        """Close the engines that runs of long ago described. The caller holds the lock."""
        for name in [name for name in self._open if self._clock() - self._used_s[name] > IDLE_S]:
            log.info("engine_closed", idle_s=round(self._clock() - self._used_s.pop(name)))
            self._open.pop(name).close()

    def prepare(self, spec: RunSpec, role: ModelRole, version: str) -> None:
        """Make a version ready in the role's engine. Raises ConfigError."""
        try:
            prepare(self.of(spec, role), version)
        except EngineError as error:
            where = f"engine {spec.engine.of(role).kind!r} cannot load {version!r}: {error}"
            raise ConfigError(where, "the version that served before stays in service") from error

    def check(
        self,
        spec: RunSpec,
        *,
        patience_s: float = FIRST_ANSWER_S,
        roles: Collection[ModelRole] = MODEL_ROLES,
        stopping: threading.Event | None = None,
    ) -> None:
        """Request one token from each of these roles' models, with a timeout of `patience_s`. Then
        begin a call with each role's prompt and sampling.

        Raises ConfigError for a model that cannot answer or refuses its role's sampling, and for a
        model in training whose answers have no tokens; Interrupted once `stopping` is set. Some
        endpoints may be unavailable, but not all.
        """
        stopping = stopping or threading.Event()
        for role in roles:
            self._check_folder(spec, role)
        asked = set[tuple[int, str]]()
        for role in roles:
            engine, version = self.of(spec, role), spec.model_of(role)
            if (id(engine), version) not in asked:
                asked.add((id(engine), version))
                self._check_answers(spec, role, patience_s, stopping)
        pack = load_pack(spec.prompts, spec.base)
        for role in roles:
            for endpoint in endpoint_engines(self.of(spec, role)):
                _check_stopping(stopping)
                _check_takes_calls(endpoint, spec, pack, role)
                if any(_share_model(spec, role, trained) for trained in spec.training.roles):
                    _check_tokens(endpoint, spec, pack, role, patience_s, stopping)

    def _check_folder(self, spec: RunSpec, role: ModelRole) -> None:
        """Raise ConfigError if the model's folder is missing: importing torch takes seconds."""
        version = spec.model_of(role)
        if not get_engine(spec.engine.of(role).kind).loads_folders:
            return
        try:
            require_model(version_folder(self._store, self._cache, version, spec.base))
        except NotFound as error:
            raise ConfigError(
                f"[models] {role}: the store {self._store} has no version {version!r}",
                "see `proofloop models list`",
            ) from error
        except ConfigError as error:
            raise ConfigError(f"[models] {role}: {error.problem}", error.hint) from error

    def _check_answers(
        self, spec: RunSpec, role: ModelRole, patience_s: float, stopping: threading.Event
    ) -> None:
        endpoints = endpoint_engines(self.of(spec, role))
        away: list[ConfigError] = []
        for endpoint in endpoints:
            try:
                _check_answers(endpoint, spec, role, patience_s, stopping)
            except ConfigError as error:
                cause = error.__cause__
                if not isinstance(cause, TimeoutError) and not (
                    isinstance(cause, EngineError) and cause.retryable
                ):
                    raise
                away.append(error)
        if len(away) == len(endpoints):
            raise away[0]
        for absence in away:
            log.warning("endpoint_unavailable", role=role, reason=absence.problem)

    def close(self) -> None:
        for engine in self._open.values():
            engine.close()


def _check_stopping(stopping: threading.Event) -> None:
    if stopping.is_set():
        raise Interrupted("asked to stop")


def _result(call: Call, patience_s: float, stopping: threading.Event) -> Generation:
    """The answer of a call. Raises EngineError, TimeoutError after `patience_s` seconds, and
    Interrupted once `stopping` is set; the call is then cancelled.
    """
    end_s = time.monotonic() + patience_s
    while not stopping.is_set():
        left_s = end_s - time.monotonic()
        try:
            return call.result(max(0.0, min(LOOK_S, left_s)))
        except TimeoutError:
            if left_s <= LOOK_S:
                raise
    call.cancel()
    raise Interrupted("asked to stop")


def _check_answers(
    engine: Engine, spec: RunSpec, role: ModelRole, patience_s: float, stopping: threading.Event
) -> None:
    """Ask the role's model for one token."""
    engine_name, version = _name(spec, role), spec.model_of(role)
    request = GenerationRequest(
        id=f"{role}:check:{version}",
        model=version,
        messages=(ChatMessage("user", "Say yes."),),
        sampling=Sampling(max_tokens=1),
        seed=LARGEST_SEED,
    )
    try:
        _check_stopping(stopping)
        _result(engine.submit(request), patience_s, stopping)
    except TimeoutError as error:
        where = f"{engine_name} has not answered with model {version!r} within {patience_s:g} s"
        raise ConfigError(where, "is the model still loading?") from error
    except EngineError as error:
        where = f"{engine_name} cannot answer with model {version!r}: {error.problem}"
        failed = "look into the server's log" if error.retryable else "check [engine] and [models]"
        raise ConfigError(where, error.hint or failed) from error


def _name(spec: RunSpec, role: ModelRole) -> str:
    """The engine's name, with the role if the role has an engine of its own."""
    whose = "" if spec.engine.table_of(role) == "engine" else f" of the {role}"
    return f"engine {spec.engine.of(role).kind!r}{whose}"


def _share_model(spec: RunSpec, role: ModelRole, other: ModelRole) -> bool:
    return spec.model_of(role) == spec.model_of(other) and spec.engine.of(role) == spec.engine.of(
        other
    )


def _check_takes_calls(engine: Engine, spec: RunSpec, pack: PromptPack, role: ModelRole) -> None:
    try:
        taken = check_taken(engine, spec, pack, role, spec.model_of(role))
    except CallRefused as error:
        where = f"{_name(spec, role)} refuses the calls of the {role}: {error.problem}"
        raise ConfigError(where, error.hint or "change what the engine refuses") from error
    except EngineError:
        return  # the model has just answered one token: this error is temporary
    if taken is not None:
        _check_has_text(taken, role)


def _check_tokens(
    engine: Engine,
    spec: RunSpec,
    pack: PromptPack,
    role: ModelRole,
    patience_s: float,
    stopping: threading.Event,
) -> None:
    """Raise ConfigError if the answers of a role in training have no token ids or
    log-probabilities.
    """
    version = spec.model_of(role)
    try:
        call = engine.submit(one_token_request(spec, pack, role, version))
        answer = _result(call, patience_s, stopping)
    except (EngineError, TimeoutError):
        return  # the model has just answered one token: this error is temporary
    if answer.tokens is None:
        where = (
            f"{_name(spec, role)} gives no token ids with log-probabilities for model {version!r}"
        )
        raise ConfigError(where, NEEDS_TOKENS)


def _check_has_text(answer: Generation, role: str) -> None:
    """Raises ConfigError for an answer with reasoning alone: no proof and no critique could be
    read.
    """
    if answer.finish_reason == "stop" and answer.reasoning and not answer.text.strip():
        problem = (
            f"the {role}'s answer has {len(answer.reasoning)} characters of reasoning and no"
            " content"
        )
        raise ConfigError(problem, ALL_IN_REASONING)
