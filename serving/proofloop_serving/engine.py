"""The in-process engine: samples any Hugging Face causal language model from a local folder in
batches, in one thread.

Calls join the running batch of their model and leave it when they end. A model version is loaded at
its first call. An invalid call fails alone, and the engine continues.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import structlog
import torch

from proofloop.engine.base import FutureCall, Generation, GenerationRequest
from proofloop.engine.info import is_adapter
from proofloop.engine.local import LocalSettings
from proofloop.engine.settings import read_settings
from proofloop.errors import CallRefused, ConfigError, EngineError, NotFound, StoreError
from proofloop.schema.records import Tokens
from proofloop.store.model_folders import whole_model
from proofloop_serving.decoding.batch import Batch
from proofloop_serving.decoding.row import Row
from proofloop_serving.loading import LoadedModel, load_adapter, load_model
from proofloop_serving.text import StopStrings

LINGER_S = 0.004  # how long the first calls of a batch wait for more calls
THINKING_ENDS = "</think>"

log = structlog.get_logger()

Resolve = Callable[[str], Path]


@dataclass(frozen=True)
class Options:
    """Further options of a call to this engine beyond a GenerationRequest.

    `prompt` is raw text that replaces the messages; `top_k` = 0 means all tokens; `when_done` is
    called when the call ends.
    """

    prompt: str = ""
    top_k: int = 0
    stop: tuple[str, ...] = ()
    when_done: Callable[[], None] = lambda: None


class LocalCall(FutureCall):
    """A call of the in-process engine. `row` is set when the call starts; other threads may read
    its progress.
    """

    def __init__(self, request: GenerationRequest, options: Options) -> None:
        super().__init__()
        self.request = request
        self.options = options
        self.cancel_asked = threading.Event()
        self.row: Row | None = None
        self.when_done(options.when_done)

    def cancel(self) -> None:
        self.cancel_asked.set()


@dataclass(eq=False)
class _Served:
    """A loaded model and its running calls."""

    loaded: LoadedModel
    batch: Batch
    calls: dict[Row, LocalCall] = field(default_factory=dict)


class LocalEngine:
    """Answers calls by models in this process; `resolve` returns the folder of a model version."""

    def __init__(self, resolve: Resolve, settings: LocalSettings | None = None) -> None:
        self._resolve = resolve
        self._settings = settings or LocalSettings()
        self._max_batch = self._settings.max_batch
        self._models: OrderedDict[str, _Served] = OrderedDict()
        self._whole: WeakValueDictionary[Path, LoadedModel] = WeakValueDictionary()
        """The models with all weights by folder, as long as they or one of their adapters serve."""
        self._waiting: dict[str, deque[LocalCall]] = {}  # by model, the oldest call first
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="local-engine", daemon=True)
        self._thread.start()

    def submit(self, request: GenerationRequest, options: Options | None = None) -> LocalCall:
        call = LocalCall(request, options or Options())
        with self._changed:
            if self._is_closed:
                _fail([call], EngineError("the engine is closed", retryable=True))
            else:
                self._waiting.setdefault(request.model, deque()).append(call)
                self._changed.notify()
        return call

    def load(self, name: str) -> LoadedModel:
        """Load a model now. Only before the first call: models belong to the engine's thread.
        Raises EngineError.
        """
        return self._model(name).loaded

    def counts(self) -> tuple[int, int]:
        """The numbers of running and of waiting calls."""
        with self._changed:
            return sum(
                len(served.calls) for served in list(self._models.values())
            ), self._num_waiting()

    def close(self) -> None:
        """Fail the waiting calls, cancel the running ones, and end the thread."""
        with self._changed:
            self._is_closed = True
            for calls in self._waiting.values():
                _fail(calls, EngineError("the engine was closed", retryable=True))
            self._waiting.clear()
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        torch.set_num_threads(self._settings.threads)
        while self._is_busy() or self._wait():
            for name, calls in self._gather().items():
                self._guarded(name, calls, partial(self._begin, name, calls))
            for name in list(self._models):
                if self._models[name].calls:
                    self._guarded(name, [], partial(_step, self._models[name]))

    def _guarded(self, name: str, calls: Sequence[LocalCall], work: Callable[[], None]) -> None:
        """Do some work for one model. If it fails, these calls and the model's running calls fail
        too.
        """
        try:
            work()
            return
        except EngineError as error:
            failure = error
        except torch.OutOfMemoryError as error:
            failure = EngineError(f"out of memory: {error}", retryable=True)
            self._max_batch = max(1, self._max_batch // 2)  # or the retries would fail too
            log.warning("out_of_memory", model=name, max_batch=self._max_batch)
        except Exception as error:  # a model's code may raise anything; the thread must survive
            failure = EngineError(f"{type(error).__name__}: {error}", retryable=False)
        running = []
        if served := self._models.get(name):
            running = list(served.calls.values())
            served.calls.clear()
            served.batch.clear()
        _fail([*calls, *running], failure)

    def _is_busy(self) -> bool:
        return any(served.calls for served in self._models.values())

    def _wait(self) -> bool:
        """Wait for calls, then LINGER_S for more; false if the engine was closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            deadline = time.monotonic() + LINGER_S
            while self._num_waiting() < self._max_batch and not self._is_closed:
                if not self._changed.wait(deadline - time.monotonic()):
                    break
            return not self._is_closed

    def _num_waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    def _gather(self) -> dict[str, list[LocalCall]]:
        """The waiting calls that can start now, by model: as many as fit into the batch."""
        with self._changed:
            chosen: dict[str, list[LocalCall]] = {}
            for name, waiting in list(self._waiting.items()):
                served = self._models.get(name)
                count = min(len(waiting), self._max_batch - (len(served.calls) if served else 0))
                if count and (served is None or served.batch.wants(count)):
                    chosen[name] = [waiting.popleft() for _ in range(count)]
                if not waiting:
                    del self._waiting[name]
            return chosen

    def _begin(self, name: str, calls: Sequence[LocalCall]) -> None:
        """Add calls to the batch of their model; invalid calls fail here."""
        wanted = [call for call in calls if not call.cancel_asked.is_set()]
        for call in calls:
            if call not in wanted:
                call.future.set_result(Generation("", "cancelled", 0, 0, 0.0, name))
        if not wanted:
            return
        served = self._model(name)
        rows = {
            self._row(call, served.loaded, prompt): call
            for call, prompt in _encoded(wanted, served.loaded)
        }
        _fail_oversized(rows, served.loaded)
        if rows:
            served.loaded.activate()
            served.batch.join(list(rows))
            served.calls.update(rows)
            self._forget_prompts()

    def _model(self, name: str) -> _Served:
        """The loaded model. Raises EngineError, retryable if the store is unavailable or memory is
        short.
        """
        if name not in self._models:
            self._make_room(self._settings.models_kept - 1)
            self._models[name] = self._load(name)
        self._models.move_to_end(name)
        return self._models[name]

    def _load(self, name: str) -> _Served:
        """Load a model; if memory is short, unload the idle models and try once more. Raises
        EngineError.
        """
        folder = self._find(name)
        settings = self._settings
        problem = ""
        for _ in range(2):
            try:
                loaded = self._loaded(folder)
                batch = Batch(
                    loaded.model,
                    loaded.eos_ids,
                    settings.prompt_tokens_kept,
                    settings.tokens_per_pass,
                )
                return _Served(loaded, batch)
            except torch.OutOfMemoryError as error:
                problem = str(error)
            # after the handler, whose error still holds the loaded tensors
            self._make_room(0)
        raise EngineError(
            f"no memory for {name!r} beside {len(self._models)} busy models: {problem}",
            retryable=True,
        )

    def _loaded(self, folder: Path) -> LoadedModel:
        """The model in a folder. An adapter shares the model of its base with other versions."""
        try:
            whole = whole_model(folder)
        except ConfigError as error:
            raise EngineError(str(error), retryable=False) from error
        if (base := self._whole.get(whole)) is None:
            base = self._whole[whole] = load_model(whole)
        return load_adapter(base, folder) if is_adapter(folder) else base

    def _make_room(self, kept: int) -> None:
        """Unload the least recently used idle models until `kept` models are left or none is
        idle.
        """
        idle = [name for name, served in self._models.items() if not served.calls]
        for name in idle[: max(0, len(self._models) - kept)]:
            self._models.pop(name).loaded.unload()
        torch.cuda.empty_cache()

    def _forget_prompts(self) -> None:
        """Limit the cached prompts of all models together; those of the least recently used model
        go first.
        """
        kept = [served.batch.prompts for served in self._models.values()]
        excess = sum(prompts.tokens for prompts in kept) - self._settings.prompt_tokens_kept
        for prompts in kept:
            excess -= prompts.forget(excess)

    def _find(self, name: str) -> Path:
        try:
            return self._resolve(name)
        except StoreError as error:
            is_retryable = not isinstance(error, NotFound)
            raise EngineError(
                f"cannot fetch model {name!r}: {error}", retryable=is_retryable
            ) from error

    def _row(self, call: LocalCall, loaded: LoadedModel, prompt_ids: tuple[int, ...]) -> Row:
        sampling, cancel_asked = call.request.sampling, call.cancel_asked
        call.row = Row(
            prompt_ids,
            sampling,
            call.request.seed,
            max_tokens=min(sampling.max_tokens, loaded.max_length - len(prompt_ids)),
            is_cancelled=lambda: self._is_closed or cancel_asked.is_set(),
            top_k=call.options.top_k,
        )
        if call.options.stop:
            call.row.ends = StopStrings(loaded.tokenizer, call.options.stop).ends
        return call.row


def open_engine(settings: Mapping[str, Any], resolve: Resolve) -> LocalEngine:
    """Open the engine `local`. Raises ConfigError for invalid settings."""
    return LocalEngine(resolve, read_settings(LocalSettings, settings, "local"))


def _prompt(call: LocalCall) -> str | tuple[Any, ...]:
    return call.options.prompt or call.request.messages


def _encoded(
    calls: Sequence[LocalCall], loaded: LoadedModel
) -> Iterator[tuple[LocalCall, tuple[int, ...]]]:
    """Each call with its prompt's token ids; identical prompts are encoded once. Fails calls with
    invalid prompts.
    """
    known: dict[str | tuple[Any, ...], tuple[int, ...]] = {}
    for call in calls:
        prompt = _prompt(call)
        try:
            known[prompt] = known.get(prompt) or loaded.encode(prompt)
        except CallRefused as error:
            _fail([call], error)
        else:
            yield call, known[prompt]


def _step(served: _Served) -> None:
    """Sample one more token for each call of a model, and answer the calls that ended with it."""
    served.loaded.activate()
    ended = served.batch.step()
    for row in ended:
        # before `pop`: if it raises, _guarded fails the calls in `calls`
        answer = _generation(served.calls[row], served.loaded, row)
        served.calls.pop(row).future.set_result(answer)


def _fail(calls: Sequence[LocalCall], error: EngineError) -> None:
    for call in calls:
        if not call.future.done():
            call.future.set_exception(error)


def _fail_oversized(rows: dict[Row, LocalCall], loaded: LoadedModel) -> None:
    """Fail and remove the calls whose prompt leaves no room for an answer."""
    for row, call in list(rows.items()):
        if row.max_tokens < 1:
            context = f"the model's context has {loaded.max_length}"
            problem = (
                f"a prompt of {len(row.prompt_ids)} tokens leaves no room for an answer: {context}"
            )
            _fail([call], CallRefused(problem))
            del rows[row]


def answer_text(loaded: LoadedModel, row: Row) -> str:
    """The text of the answer, up to the stop string if one ended it."""
    text = str(loaded.tokenizer.decode(row.completion_ids, skip_special_tokens=True))
    return text[: text.find(row.stop_reason)] if row.stop_reason else text


def _generation(call: LocalCall, loaded: LoadedModel, row: Row) -> Generation:
    reasoning, _, final = answer_text(loaded, row).rpartition(THINKING_ENDS)
    return Generation(
        text=final.strip(),
        finish_reason=row.finish_reason or "cancelled",
        prompt_tokens=len(row.prompt_ids),
        completion_tokens=len(row.completion_ids),
        engine_seconds=row.seconds,
        model_version=call.request.model,
        reasoning=reasoning.strip(),
        cached_tokens=row.cached_tokens,
        tokens=Tokens(
            prompt_ids=row.prompt_ids,
            completion_ids=tuple(row.completion_ids),
            logprobs=tuple(row.logprobs),
            routed_experts=tuple(row.experts) or None,
        ),
    )
