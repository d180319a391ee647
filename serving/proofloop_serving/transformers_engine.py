"""The engine `transformers` inside Triton: the in-process engine, plus the text of running
calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from proofloop.engine.base import GenerationRequest
from proofloop.engine.local import LocalSettings
from proofloop_serving.calls import Progress, ServingRequest
from proofloop_serving.engine import LocalCall, LocalEngine, Options, answer_text
from proofloop_serving.loading import LoadedModel
from proofloop_serving.settings import TransformersSettings
from proofloop_serving.text import TextStream


class TransformersCall:
    """A call of the in-process engine. Only one thread may read its progress."""

    def __init__(self, call: LocalCall, loaded: LoadedModel) -> None:
        self._call = call
        self._loaded = loaded
        self._stream = TextStream(loaded.tokenizer)
        self._streamed = 0

    def cancel(self) -> None:
        self._call.cancel()

    def progress(self, want_text: bool) -> Progress:
        has_ended = self._call.future.done()
        if has_ended:
            reason = self._call.result().finish_reason  # raises if the call failed
        row = self._call.row
        if row is None:
            return Progress(finish_reason="cancelled" if has_ended else None)
        # the engine's thread adds a token before its log-probability
        count = len(row.logprobs)
        if has_ended:
            text = answer_text(self._loaded, row)
        else:
            text = self._text(row.completion_ids[:count]) if want_text else ""
        return Progress(
            text=text,
            finish_reason=reason if has_ended else None,
            stop_reason=row.stop_reason,
            prompt_ids=row.prompt_ids,
            token_ids=row.completion_ids[:count],
            logprobs=row.logprobs[:count],
            experts=row.experts if has_ended else (),
            cached_tokens=row.cached_tokens,
            seconds=row.seconds,
        )

    def _text(self, token_ids: Sequence[int]) -> str:
        for token in token_ids[self._streamed :]:
            self._stream.add(token)
        self._streamed = len(token_ids)
        return self._stream.text


class TransformersEngine:
    """A model version on proofloop's decoder."""

    def __init__(self, folder: Path, version: str, settings: TransformersSettings) -> None:
        self._version = version
        self._engine = LocalEngine(
            lambda _: folder, LocalSettings(**settings.model_dump(exclude={"engine"}))
        )
        self._loaded = self._engine.load(version)

    def begin(self, request: ServingRequest, when_done: Callable[[], None]) -> TransformersCall:
        raw = request.prompt if isinstance(request.prompt, str) else ""
        messages = () if isinstance(request.prompt, str) else request.prompt
        generation = GenerationRequest(
            request.id, self._version, messages, request.sampling, request.seed
        )
        options = Options(raw, request.top_k, request.stop, when_done)
        return TransformersCall(self._engine.submit(generation, options), self._loaded)

    def decode(self, token_ids: Sequence[int]) -> str:
        return str(self._loaded.tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def counts(self) -> tuple[int, int]:
        return self._engine.counts()

    def close(self) -> None:
        self._engine.close()
