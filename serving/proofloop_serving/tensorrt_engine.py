"""The engine `tensorrt_llm` inside Triton: the LLM API of TensorRT-LLM 1.2 (PyTorch workflow).

Written against the published sources of NVIDIA/TensorRT-LLM, release 1.2:
tensorrt_llm/llmapi/llm.py (LLM, RequestOutput), tensorrt_llm/sampling_params.py,
tensorrt_llm/executor/result.py (CompletionOutput), and triton_backend/all_models/llmapi. It has not
run on a GPU yet.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from proofloop.errors import CallRefused, EngineError
from proofloop_serving.calls import Progress, ServingRequest, encode
from proofloop_serving.settings import TensorRTSettings


class TensorRTCall:
    """A call of the LLM API. The engine's event loop replaces `latest` as a whole, so any thread
    can read it.
    """

    def __init__(self, when_done: Callable[[], None]) -> None:
        self.when_done = when_done
        self.latest = Progress()
        self.failure: EngineError | None = None
        self.output: Any = None
        self.cancel_asked = False
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []

    def progress(self, want_text: bool) -> Progress:
        if self.failure:
            raise self.failure
        return self.latest

    def cancel(self) -> None:
        self.cancel_asked = True
        if self.output is not None and not self.latest.finish_reason:
            # RequestOutput.abort frees the slot; the last output has the finish reason "cancelled"
            self.output.abort()


class TensorRTEngine:
    """A model version on TensorRT-LLM. One event loop in a thread reads the outputs of all
    calls.
    """

    def __init__(self, folder: Path, settings: TensorRTSettings) -> None:
        # Imported here because the import starts MPI and CUDA, which only this engine needs.
        from tensorrt_llm import LLM, SamplingParams

        self._sampling_params = SamplingParams
        try:
            self._llm = LLM(model=str(folder), **settings.llm)
        except Exception as error:  # for a bad setting or checkpoint, the loaders raise anything
            raise EngineError(
                f"TensorRT-LLM cannot load {folder}: {error}", retryable=False
            ) from error
        self._tokenizer = self._llm.tokenizer
        self._settings = settings
        self._running = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="tensorrt-outputs", daemon=True
        )
        self._thread.start()

    def begin(self, request: ServingRequest, when_done: Callable[[], None]) -> TensorRTCall:
        call = TensorRTCall(when_done)
        prompt_ids = encode(self._tokenizer, request.prompt, self._settings.chat_template_values)
        asyncio.run_coroutine_threadsafe(self._follow(call, request, prompt_ids), self._loop)
        return call

    def decode(self, token_ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def counts(self) -> tuple[int, int]:
        """All calls count as running: the LLM API does not tell which ones wait in its
        scheduler.
        """
        return self._running, 0

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._llm.shutdown()

    def _sampling(self, request: ServingRequest) -> Any:
        is_greedy = request.sampling.temperature == 0
        return self._sampling_params(
            max_tokens=request.sampling.max_tokens,
            temperature=None if is_greedy else request.sampling.temperature,
            top_p=None if is_greedy else request.sampling.top_p,
            top_k=1 if is_greedy else request.top_k or None,
            seed=request.seed,
            stop=list(request.stop) or None,
            logprobs=1
            if self._gives_logprobs(request)
            else None,  # with 1, both samplers include the sampled token
        )

    def _gives_logprobs(self, request: ServingRequest) -> bool:
        """Whether to request log-probabilities.

        TensorRT-LLM's default sampler computes them before temperature, top_p and top_k; with any
        of these, they are not those of the sampled distribution. With speculation, a call that
        requests them crashes the engine.
        """
        is_plain = (
            request.sampling.temperature == 1 and request.sampling.top_p == 1 and not request.top_k
        )
        return is_plain and not self._settings.llm.get("speculative_config")

    async def _follow(
        self, call: TensorRTCall, request: ServingRequest, prompt_ids: list[int]
    ) -> None:
        began = time.monotonic()
        self._running += 1
        try:
            call.output = self._llm.generate_async(
                prompt_ids, self._sampling(request), streaming=True
            )
            if call.cancel_asked:
                call.output.abort()
            async for output in call.output:
                call.latest = _progress(call, output, prompt_ids, time.monotonic() - began)
        except ValueError as error:  # from LLM._check_arguments: the prompt is too long
            call.failure = CallRefused(str(error))
        except Exception as error:  # the engine died or was shut down under the call
            call.failure = EngineError(
                f"TensorRT-LLM: {type(error).__name__}: {error}", retryable=True
            )
        finally:
            self._running -= 1
            call.when_done()


def _progress(
    call: TensorRTCall, output: Any, prompt_ids: Sequence[int], seconds: float
) -> Progress:
    """The progress in a RequestOutput. Its only sequence holds all tokens and text so far; only new
    tokens are read.
    """
    sequence = output.outputs[0]
    if sequence.finish_reason:  # the tokens of a stop string were removed: read all tokens again
        call.token_ids = []
        call.logprobs = []
    call.token_ids += sequence.token_ids[len(call.token_ids) :]
    known = len(call.logprobs)
    pairs = zip((sequence.logprobs or [])[known:], call.token_ids[known:], strict=False)
    call.logprobs += [_logprob(entry, token) for entry, token in pairs]
    return Progress(
        text=sequence.text,
        finish_reason=sequence.finish_reason,
        stop_reason=sequence.stop_reason if isinstance(sequence.stop_reason, str) else "",
        prompt_ids=prompt_ids,
        token_ids=call.token_ids,
        logprobs=call.logprobs,
        cached_tokens=output.cached_tokens,
        seconds=seconds,
    )


def _logprob(entry: Any, token: int) -> float:
    """The sampled token's log-probability. `entry` is a float, or maps token ids to Logprobs,
    perhaps without it.
    """
    if not isinstance(entry, dict):
        return float(entry)
    return float(entry[token].logprob) if token in entry else math.nan
