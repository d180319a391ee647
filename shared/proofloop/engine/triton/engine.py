"""The engine for Triton servers over gRPC, with proofloop's model or TensorRT-LLM's `llmapi` model.

All calls of an engine run on one event loop in a background thread, each as a stream on its
replica's connection, so create the engine after a fork. A running call has no time limit: only
silence (`idle_timeout_s`) ends it. The engine does not retry a call after the first part of its
answer.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid

import structlog
from tritonclient.grpc import service_pb2 as messages

from proofloop.engine.base import GenerationRequest
from proofloop.engine.event_loop import EventLoopEngine
from proofloop.engine.slots import Slots
from proofloop.engine.triton.answer import TritonAnswer
from proofloop.engine.triton.call import TritonCall
from proofloop.engine.triton.prompt import ChatTemplate, Inputs, common_inputs, message_inputs
from proofloop.engine.triton.replica import Interface, Replica, TransientFailure
from proofloop.engine.triton.replicas import Replicas
from proofloop.engine.triton.settings import TritonSettings
from proofloop.errors import ConfigError, EngineError

log = structlog.get_logger(__name__)


class TritonEngine(EventLoopEngine[TritonCall]):
    """Answers from the models of one or more Triton servers."""

    def __init__(self, settings: TritonSettings) -> None:
        self._settings = settings
        _check_authority(settings)
        self._template: ChatTemplate | None = None
        if settings.chat_template:
            self._template = ChatTemplate(settings.chat_template, settings.chat_template_values)
        self._slots = Slots(settings.max_concurrency)
        self._replicas = Replicas(settings)
        super().__init__("triton-engine")

    async def _prepare(self, model: str) -> None:
        await self._replicas.prepare(model)

    def _new_call(self, request: GenerationRequest) -> TritonCall:
        return TritonCall(request, self._settings, self._loop)

    async def _disconnect(self) -> None:
        await self._replicas.close()

    async def _run(self, call: TritonCall) -> None:
        """Attempt until the answer is complete. A waiting call keeps its slot: a busy server must
        not get more calls.
        """
        async with self._slots.hold(call.request.priority):
            attempt = 1
            while (failure := await self._attempt(call)) is not None:
                await asyncio.sleep(self._wait_after(failure, attempt, call))
                attempt += 1

    def _wait_after(self, failure: TransientFailure, attempt: int, call: TritonCall) -> float:
        """The wait before the next attempt. Raises EngineError if there is no next attempt."""
        problem = f"{failure}; attempt {attempt} of max_attempts = {self._settings.max_attempts}"
        if call.answer.began:
            problem = f"{failure}; the answer had begun"
        elif attempt < self._settings.max_attempts:
            wait_s = self._settings.backoff_s(attempt, random.random())
            log.info(
                "engine_attempt_failed",
                request_id=call.request.id,
                problem=problem,
                wait_s=round(wait_s, 3),
            )
            return wait_s
        raise EngineError(problem, retryable=True)

    async def _attempt(self, call: TritonCall) -> TransientFailure | None:
        """Send the call to one replica. Returns a failure that a retry may fix, if any."""
        began = time.monotonic()
        try:
            affinity = call.request.affinity or call.request.id
            replica = await self._replicas.choose(affinity, call.request.model, call.failed)
            call.failed.add(replica.address)
            await self._ask(call, replica)
            return None
        except TransientFailure as failure:
            return failure
        finally:
            call.engine_seconds += time.monotonic() - began

    async def _ask(self, call: TritonCall, replica: Replica) -> None:
        name = self._settings.name_of(call.request.model)
        with replica.use(name):
            interface = await replica.interface(name, call.request.model)
            if interface is None:
                raise TransientFailure(f"{replica.address}: model {name!r} is not ready")
            await self._stream_until_silent(call, replica, name, interface)

    async def _stream_until_silent(
        self, call: TritonCall, replica: Replica, name: str, interface: Interface
    ) -> None:
        try:
            async with asyncio.timeout(self._settings.idle_timeout_s) as idle:
                await self._stream(call, replica, name, interface, idle)
        except TimeoutError:
            problem = (
                f"{replica.address}: the server sent nothing for idle_timeout_s ="
                f" {self._settings.idle_timeout_s}"
            )
            raise EngineError(problem, retryable=True) from None

    async def _stream(
        self,
        call: TritonCall,
        replica: Replica,
        name: str,
        interface: Interface,
        idle: asyncio.Timeout,
    ) -> None:
        inputs, prompt = self._inputs(call.request, interface)
        message = _message(name, call.request.id, inputs)
        call.answer = answer = TritonAnswer(self._settings.max_answer_bytes, prompt)
        try:
            async for chunk in replica.stream(name, message):
                answer.absorb(chunk)
                idle.reschedule(self._loop.time() + self._settings.idle_timeout_s)
        except ValueError as error:
            problem = f"{replica.address}: the answer of {name!r} is unreadable: {error}"
            raise EngineError(problem, retryable=False) from error
        if not answer.finish_reason:
            raise TransientFailure(f"{replica.address}: the stream ended without a finish reason")

    def _inputs(self, request: GenerationRequest, interface: Interface) -> tuple[Inputs, str]:
        """The inputs of the model, and the prompt that it may echo. Raises EngineError without a
        chat template.
        """
        inputs, prompt = common_inputs(request, streaming=interface.decoupled), ""
        if interface.is_ours:
            inputs |= message_inputs(request.messages, want_tokens=self._settings.want_tokens)
        elif self._template:
            prompt = self._template.render(request.messages)
            inputs |= {"text_input": ("BYTES", prompt)}
        else:
            problem = (
                f"[engine] triton: model {request.model!r} has no `messages` input and"
                " chat_template is not set"
            )
            hint = "set it to the Jinja file with the model's chat template"
            raise EngineError(problem, retryable=False, hint=hint)
        return {key: value for key, value in inputs.items() if key in interface.inputs}, prompt


def _check_authority(settings: TritonSettings) -> None:
    """Raises ConfigError for an unreadable `ca_file`."""
    try:
        if settings.ca_file:
            settings.ca_file.read_bytes()
    except OSError as error:
        problem = (
            f"[engine] triton: ca_file = {str(settings.ca_file)!r} cannot be read: {error.strerror}"
        )
        hint = "put the file on every machine that calls the servers"
        raise ConfigError(problem, hint) from error


def _message(name: str, request_id: str, inputs: Inputs) -> messages.ModelInferRequest:
    """The request's message. Each attempt has its own request id."""
    message = messages.ModelInferRequest(model_name=name, id=f"{request_id}:{uuid.uuid4().hex[:8]}")
    for key, (datatype, value) in inputs.items():
        tensor = message.inputs.add(name=key, datatype=datatype, shape=[1])
        field, element = FIELDS[datatype], value.encode() if isinstance(value, str) else value
        getattr(tensor.contents, field).append(element)
    return message


FIELDS = {
    "BYTES": "bytes_contents",
    "BOOL": "bool_contents",
    "INT32": "int_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
}
"""The field of gRPC's message that holds the elements of each type."""
