"""The in-process engine: any Hugging Face causal language model from a local folder, sampled in batches by one thread.

Nothing is loaded before the first call of a model version. A call that cannot work fails alone; the engine goes on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch

from proofloop.engine.base import Generation, GenerationRequest
from proofloop.errors import CallRefused, EngineError
from proofloop.records import Tokens
from proofloop_trainer.decoding import Row, decode
from proofloop_trainer.loading import LoadedModel, ModelShelf, Resolve

LINGER_S = 0.004  # how long a batch that is not full waits for company
THINKING_ENDS = "</think>"


@dataclass(eq=False)
class LocalCall:
    """A call of the in-process engine."""

    request: GenerationRequest
    future: Future[Generation] = field(default_factory=Future)
    cancel_asked: threading.Event = field(default_factory=threading.Event)

    def result(self, timeout_s: float | None = None) -> Generation:
        return self.future.result(timeout_s)

    def cancel(self) -> None:
        self.cancel_asked.set()


class LocalEngine:
    """Answers by a model in this process; `resolve` gives the folder of a model version."""

    def __init__(self, resolve: Resolve, max_batch: int = 256, threads: int = 1) -> None:
        self._shelf = ModelShelf(resolve)
        self._max_batch = max_batch
        self._threads = threads
        self._waiting: list[LocalCall] = []
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="local-engine", daemon=True)
        self._thread.start()

    def submit(self, request: GenerationRequest) -> LocalCall:
        call = LocalCall(request)
        with self._changed:
            if self._is_closed:
                _fail([call], EngineError("the engine is closed", retryable=True))
            else:
                self._waiting.append(call)
                self._changed.notify()
        return call

    def close(self) -> None:
        """Fail what waits, cancel what runs, and end the thread."""
        with self._changed:
            self._is_closed = True
            _fail(self._waiting, EngineError("the engine was closed", retryable=True))
            self._waiting.clear()
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        torch.set_num_threads(self._threads)
        while calls := self._gather():
            try:
                self._answer(calls)
            except EngineError as error:
                _fail(calls, error)
            except torch.OutOfMemoryError as error:
                _fail(calls, EngineError(f"out of memory: {error}", retryable=True))
            except Exception as error:  # a model's own code may raise anything, and the thread must outlive it
                _fail(calls, EngineError(f"{type(error).__name__}: {error}", retryable=False))

    def _gather(self) -> list[LocalCall]:
        """Wait for calls of one model, the longest waiting first; none once the engine is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            deadline = time.monotonic() + LINGER_S
            while len(self._waiting) < self._max_batch and not self._is_closed:
                if not self._changed.wait(deadline - time.monotonic()):
                    break
            name = self._waiting[0].request.model if self._waiting else ""
            chosen = [call for call in self._waiting if call.request.model == name][: self._max_batch]
            taken = set(chosen)
            self._waiting = [call for call in self._waiting if call not in taken]
            return chosen

    def _answer(self, calls: Sequence[LocalCall]) -> None:
        wanted = [call for call in calls if not call.cancel_asked.is_set()]
        for call in calls:
            if call not in wanted:
                call.future.set_result(Generation("", "cancelled", 0, 0, 0.0, call.request.model))
        if not wanted:
            return
        loaded = self._shelf.get(wanted[0].request.model)
        prompts = {messages: loaded.encode(messages) for messages in {call.request.messages for call in wanted}}
        rows = {call: self._row(call, loaded, prompts[call.request.messages]) for call in wanted}
        _fail_oversized(rows, loaded)
        decode(loaded.model, list(rows.values()), loaded.eos_ids)
        for call, row in rows.items():
            call.future.set_result(_generation(call.request.model, loaded, row))

    def _row(self, call: LocalCall, loaded: LoadedModel, prompt_ids: tuple[int, ...]) -> Row:
        sampling = call.request.sampling
        max_tokens = min(sampling.max_tokens, loaded.max_length - len(prompt_ids))
        return Row(
            prompt_ids, sampling, call.request.seed, max_tokens, lambda: self._is_closed or call.cancel_asked.is_set()
        )


def open_engine(settings: Mapping[str, Any], resolve: Resolve) -> LocalEngine:
    """The entry point `local`: settings `max_batch` and `threads`, both optional."""
    return LocalEngine(resolve, int(settings.get("max_batch", 256)), int(settings.get("threads", 1)))


def _fail(calls: Sequence[LocalCall], error: EngineError) -> None:
    for call in calls:
        if not call.future.done():
            call.future.set_exception(error)


def _fail_oversized(rows: dict[LocalCall, Row], loaded: LoadedModel) -> None:
    """Take out the calls whose prompt leaves no room for an answer."""
    for call, row in list(rows.items()):
        if row.max_tokens < 1:
            problem = f"a prompt of {len(row.prompt_ids)} tokens leaves no room: the model takes {loaded.max_length}"
            _fail([call], CallRefused(problem))
            del rows[call]


def _generation(name: str, loaded: LoadedModel, row: Row) -> Generation:
    text = loaded.tokenizer.decode(row.completion_ids, skip_special_tokens=True)
    reasoning, _, final = text.rpartition(THINKING_ENDS)
    return Generation(
        text=final.strip(),
        finish_reason=row.finish_reason or "cancelled",
        prompt_tokens=len(row.prompt_ids),
        completion_tokens=len(row.completion_ids),
        engine_seconds=row.seconds,
        model_version=name,
        reasoning=reasoning.strip(),
        tokens=Tokens(
            prompt_ids=row.prompt_ids, completion_ids=tuple(row.completion_ids), logprobs=tuple(row.logprobs)
        ),
    )
