"""The shortest way to an engine of your own: a blocking function, run in threads."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor

from proofloop.engine.base import Call, FutureCall, Generation, GenerationRequest
from proofloop.errors import EngineError


class ThreadedEngine(ABC):
    """Answers up to `max_concurrency` requests at once. Override `answer`."""

    def __init__(self, max_concurrency: int = 8) -> None:
        self._pool = ThreadPoolExecutor(max_concurrency, thread_name_prefix=type(self).__name__)

    @abstractmethod
    def answer(self, request: GenerationRequest, cancelled: threading.Event) -> Generation:
        """Answer one request; called from several threads. Raises EngineError.

        Once `cancelled` is set, a long answer should end early with the finish reason "cancelled".
        """

    def submit(self, request: GenerationRequest) -> Call:
        cancelled = threading.Event()
        try:
            future = self._pool.submit(self._answer, request, cancelled)
        except RuntimeError as error:  # the pool takes no work after its shutdown
            raise _closed() from error
        return _ThreadedCall(future, cancelled)

    def close(self) -> None:
        """Drop the waiting calls and wait for the running ones. Safe to call twice."""
        self._pool.shutdown(cancel_futures=True)

    def _answer(self, request: GenerationRequest, cancelled: threading.Event) -> Generation:
        if cancelled.is_set():
            return Generation(
                text="",
                finish_reason="cancelled",
                prompt_tokens=0,
                completion_tokens=0,
                engine_seconds=0.0,
                model_version=request.model,
            )
        found = self.answer(request, cancelled)
        if not isinstance(found, Generation):
            raise EngineError(
                f"{type(self).__name__}.answer returned {found!r:.100}",
                retryable=False,
                hint="return a proofloop.engine.base.Generation",
            )
        return found


class _ThreadedCall(FutureCall):
    def __init__(self, future: Future[Generation], cancelled: threading.Event) -> None:
        super().__init__(future)
        self._cancelled = cancelled

    def result(self, timeout_s: float | None = None) -> Generation:
        try:
            return super().result(timeout_s)
        except CancelledError as error:
            raise _closed() from error

    def cancel(self) -> None:
        self._cancelled.set()


def _closed() -> EngineError:
    return EngineError("the engine is closed", retryable=True)
