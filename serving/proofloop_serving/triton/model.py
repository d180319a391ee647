"""The Python-backend model: starts each request at the engine and sends its responses.

One thread, the pump, sends all responses. It polls the running calls about fifty times a second: a
slow client gets fewer and larger chunks and never delays the engine. Only the pump uses Triton's
metrics, which are not thread-safe.
"""

from __future__ import annotations

import json
import os
import queue
import threading
import time
import traceback
from dataclasses import dataclass
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from proofloop.engine.triton.contract import (
    LLMAPI_INPUTS,
    LLMAPI_OUTPUTS,
    OUR_INPUTS,
    OUR_OUTPUTS,
    SETTINGS,
    VERSION,
)
from proofloop.errors import CallRefused, EngineError, ProofloopError
from proofloop_serving.calls import Progress, RunningCall, ServingEngine
from proofloop_serving.opening import open_serving
from proofloop_serving.settings import DEFAULT
from proofloop_serving.triton.metrics import Metrics
from proofloop_serving.triton.request import ParsedRequest, read_request

POLL_S = 0.02  # between two polls of the running calls
CANCEL_POLL_S = 0.1  # between two checks for disconnected clients; each is a round trip
KEEP_ALIVE_S = 5.0  # between two chunks of a stream without new tokens
FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


@dataclass(eq=False)
class Stream:
    """One request being answered."""

    parsed: ParsedRequest
    sender: Any
    call: RunningCall
    sent_tokens: int = -1
    sent_at: float = 0.0


class TritonPythonModel:
    """One model version. Triton calls `execute` from one thread."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Declare the contract: a load request then needs only the backend and the parameters."""
        for name, data_type in (LLMAPI_INPUTS | OUR_INPUTS).items():
            config.add_input({"name": name, "data_type": data_type, "dims": [-1], "optional": True})
        for name, data_type in (LLMAPI_OUTPUTS | OUR_OUTPUTS).items():
            config.add_output({"name": name, "data_type": data_type, "dims": [-1]})
        config.set_max_batch_size(0)
        config.set_model_transaction_policy({"decoupled": True})
        return config

    def initialize(self, args: dict[str, str]) -> None:
        """Fetch and load the version. Raises TritonModelException with a one-line reason."""
        parameters = json.loads(args["model_config"]).get("parameters", {})
        given = {name: value["string_value"] for name, value in parameters.items()}
        self._version = given.get(VERSION) or args["model_name"]
        try:
            self._engine: ServingEngine = open_serving(
                self._version, given.get(SETTINGS) or DEFAULT
            )
        except ProofloopError as error:
            problem = " ".join(str(error).split())
            raise pb_utils.TritonModelException(
                f"{self._version} cannot be served: {problem}"
            ) from error
        self._metrics = Metrics(self._version)
        self._new: queue.SimpleQueue[Stream] = queue.SimpleQueue()
        self._running: dict[str, RunningCall] = {}  # those with a request id, by that id
        self._woken = threading.Event()
        self._is_ending = False
        self._pump = threading.Thread(target=self._run_pump, name="pump")
        self._pump.start()

    def execute(self, requests: list[Any]) -> None:
        """Start all requests and return at once. An invalid request gets its own error."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._begin(request, sender)
            except (CallRefused, EngineError) as error:
                _send_error(sender, error)

    def finalize(self) -> None:
        """Wait for the running calls. Triton sends no new requests to a model that it unloads."""
        self._is_ending = True
        self._woken.set()
        self._pump.join()
        self._engine.close()

    def _begin(self, request: Any, sender: Any) -> None:
        parsed = read_request(request.request_id(), lambda name: _array(request, name))
        if parsed.is_stop:
            if call := self._running.get(request.request_id()):
                call.cancel()
            sender.send(pb_utils.InferenceResponse(output_tensors=[]), flags=FINAL)
            return
        assert parsed.request is not None
        if parsed.request.id and parsed.request.id in self._running:
            raise CallRefused(
                f"request id {parsed.request.id!r} is already running; use a new id for each"
                " attempt"
            )
        call = self._engine.begin(parsed.request, self._woken.set)
        if parsed.request.id:
            self._running[parsed.request.id] = call
        self._new.put(Stream(parsed, sender, call))
        self._woken.set()

    def _run_pump(self) -> None:
        try:
            self._send_all()
        except BaseException:  # a bug: no call would end; start.sh notices and ends Triton
            traceback.print_exc()
            os._exit(1)

    def _send_all(self) -> None:
        """Send responses until the model is unloaded and the last answer is sent."""
        streams: list[Stream] = []
        cancel_polled_s = 0.0
        while streams or not self._new.empty() or not self._is_ending:
            self._woken.wait(POLL_S if streams else None)
            self._woken.clear()
            while not self._new.empty():
                streams.append(self._new.get())
            if time.monotonic() - cancel_polled_s > CANCEL_POLL_S:
                cancel_polled_s = time.monotonic()
                for stream in streams:
                    if stream.sender.is_cancelled():
                        stream.call.cancel()
            streams = [stream for stream in streams if not self._sent_last(stream)]
            self._metrics.show_load(*self._engine.counts())

    def _sent_last(self, stream: Stream) -> bool:
        """Send the new part of a stream; true if it was the last."""
        try:
            progress = stream.call.progress(want_text=stream.parsed.streaming)
        except EngineError as error:
            self._forget(stream)
            _send_error(stream.sender, error)
            return True
        if progress.finish_reason:
            self._forget(stream)
            self._metrics.count(progress)
            stream.sender.send(self._chunk(stream.parsed, progress), flags=FINAL)
            return True
        has_new_tokens = len(progress.token_ids) > stream.sent_tokens
        is_due = has_new_tokens or time.monotonic() - stream.sent_at > KEEP_ALIVE_S
        if stream.parsed.streaming and progress.token_ids and is_due:
            stream.sent_tokens = len(progress.token_ids)
            stream.sent_at = time.monotonic()
            stream.sender.send(self._chunk(stream.parsed, progress))
        return False

    def _forget(self, stream: Stream) -> None:
        assert stream.parsed.request is not None
        self._running.pop(stream.parsed.request.id, None)

    def _chunk(self, parsed: ParsedRequest, progress: Progress) -> Any:
        """A response with text, counts and version, and the requested optional outputs; tokens only
        in the last one.
        """
        assert parsed.request is not None
        text = progress.text
        if parsed.want_echo:
            prompt = (
                parsed.request.prompt
                if isinstance(parsed.request.prompt, str)
                else self._engine.decode(progress.prompt_ids)
            )
            text = prompt + text
        tensors = [
            _strings("text_output", text),
            _integers("num_input_tokens", [len(progress.prompt_ids)]),
            _integers("num_cached_tokens", [progress.cached_tokens]),
            _integers("num_output_tokens", [len(progress.token_ids)]),
            _floats("engine_seconds", [progress.seconds]),
            _strings("model_version", self._version),
        ]
        if "finish_reason" in parsed.outputs_requested:
            tensors.append(_strings("finish_reason", progress.finish_reason or ""))
        if "stop_reason" in parsed.outputs_requested:
            tensors.append(_strings("stop_reason", progress.stop_reason))
        if "cumulative_logprob" in parsed.outputs_requested and len(progress.logprobs) == len(
            progress.token_ids
        ):
            tensors.append(_floats("cumulative_logprob", [sum(progress.logprobs)]))
        if parsed.want_tokens and progress.finish_reason:
            tensors.append(_integers("prompt_token_ids", progress.prompt_ids))
            tensors.append(_integers("token_ids", progress.token_ids))
            tensors.append(_floats("logprobs", progress.logprobs))
            if progress.experts:
                tensors.append(
                    _integers(
                        "routed_experts", [each for token in progress.experts for each in token]
                    )
                )
        return pb_utils.InferenceResponse(output_tensors=tensors)


def _array(request: Any, name: str) -> np.ndarray | None:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy()


def _strings(name: str, text: str) -> Any:
    return pb_utils.Tensor(name, np.array([text.encode()], dtype=object))


def _integers(name: str, values: Any) -> Any:
    return pb_utils.Tensor(name, np.array(values, dtype=np.int32))


def _floats(name: str, values: Any) -> Any:
    return pb_utils.Tensor(name, np.array(values, dtype=np.float32))


def _send_error(sender: Any, error: EngineError) -> None:
    """Send an error with a code by its kind.

    INVALID_ARG: this call can never succeed. UNAVAILABLE: a retry may succeed. INTERNAL: the engine
    failed, for example by a GPU error, and all its running calls with it; the clients retry
    elsewhere.
    """
    codes = pb_utils.TritonError
    if isinstance(error, CallRefused):
        code = codes.INVALID_ARG
    else:
        code = codes.UNAVAILABLE if error.retryable else codes.INTERNAL
    sender.send(
        pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), code)), flags=FINAL
    )
