"""One Triton server as the client sees it: its connection, the models that are ready on it, loading
and unloading.

All of it lives on the engine's event loop. What is known about a server is forgotten when a call on
it fails: it may have been restarted, and a server that was restarted has lost the models that were
loaded by request.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
import structlog
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from proofloop.engine.triton.answer import Tensor, read_tensor
from proofloop.engine.triton.contract import model_config, triton_name
from proofloop.engine.triton.settings import TritonSettings
from proofloop.errors import AccessRefused, CallRefused, EngineError

log = structlog.get_logger(__name__)

CONTROL_S = 10.0
"""How long a server may take to say what is ready; loading has its own limit."""

UNLOAD_S = 3600
"""How long an unloaded model may go on with what it has begun."""

ERRORS_END_THE_STREAM = (("triton_grpc_error", "true"),)
"""Asks Triton for gRPC's status codes; it would send errors as texts without a code."""

REFUSED = frozenset({grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE})
NO_ACCESS = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED})
HOPELESS = NO_ACCESS | {grpc.StatusCode.UNIMPLEMENTED}
AWAY = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
)
NO_KEY = "This protocol is restricted"
"""How Triton says, as UNAVAILABLE, that the key for model control is missing or wrong."""

LLMAPI_REFUSALS = ("prompt length", "max_seq_len", "max_num_tokens", "max_input_len")
"""How TensorRT-LLM's own words name a prompt that is too long; its model sends them as internal
errors.
"""


class TransientFailure(Exception):
    """One attempt failed in a way another attempt may not."""


@dataclass(frozen=True)
class Interface:
    """What a ready model takes. One with `messages` is ours: it has the chat template and knows its
    tokens.
    """

    inputs: frozenset[str]
    decoupled: bool

    @property
    def is_ours(self) -> bool:
        return "messages" in self.inputs


class Replica:
    """A server at one address. `running` counts this process's calls on it by model."""

    def __init__(self, address: str, host: str, settings: TritonSettings) -> None:
        self.address = address
        self.running: Counter[str] = Counter()
        self._settings = settings
        self._channel = _open_channel(address, host, settings)
        self._stub = GRPCInferenceServiceStub(self._channel)
        self._ready: dict[str, Interface] = {}
        self._asking: dict[str, asyncio.Task[Interface | None]] = {}
        self._used: dict[
            str, float
        ] = {}  # when this process loaded or asked it, by Triton's clock: since 1970
        self._failures, self._down_until = 0, 0.0

    @property
    def is_up(self) -> bool:
        """False for a while after it did not answer, longer each time."""
        return time.monotonic() >= self._down_until

    async def close(self) -> None:
        await self._channel.close()

    def forget(self, name: str) -> None:
        """Look again whether the model is ready before it is used."""
        self._ready.pop(name, None)

    @contextmanager
    def use(self, name: str) -> Iterator[None]:
        self.running[name] += 1
        self._used[name] = time.time()
        try:
            yield
        finally:
            self.running[name] -= 1

    async def interface(self, name: str, version: str) -> Interface | None:
        """What the model takes, loaded first if it may be; None where it is not ready and not ours
        to load.

        One caller asks the server, the others wait for it. Raises EngineError for a load that
        failed, TransientFailure for a server that does not answer.
        """
        if name in self._ready:
            return self._ready[name]
        if name not in self._asking:
            self._asking[name] = asyncio.create_task(self._make_ready(name, version))
            self._asking[name].add_done_callback(lambda task: self._asked(name, task))
        return await asyncio.shield(self._asking[name])

    def _asked(self, name: str, task: asyncio.Task[Interface | None]) -> None:
        del self._asking[name]
        if not task.cancelled() and task.exception() is None and (found := task.result()):
            self._ready[name] = found

    async def _make_ready(self, name: str, version: str) -> Interface | None:
        with self._watched():
            if not await self._is_ready(name):
                if not self._settings.may_load(version):
                    return None
                await self._load(name, version)
                await self._unload_surplus(name, version)
            answer = await self._stub.ModelConfig(
                messages.ModelConfigRequest(name=name), timeout=CONTROL_S
            )
        config = answer.config
        inputs = frozenset(each.name for each in config.input)
        return Interface(inputs, config.model_transaction_policy.decoupled)

    async def _is_ready(self, name: str) -> bool:
        answer = await self._stub.ModelReady(
            messages.ModelReadyRequest(name=name), timeout=CONTROL_S
        )
        return bool(answer.ready)

    async def _load(self, name: str, version: str) -> None:
        """Load beside what is there: a model that no repository holds, made of a config and the one
        line of code.
        """
        request = messages.RepositoryModelLoadRequest(model_name=name)
        request.parameters["config"].string_param = model_config(
            version, self._settings.server_settings
        )
        request.parameters["file:1/model.py"].bytes_param = self._settings.model_file.encode()
        began, self._used[name] = time.monotonic(), time.time()
        try:
            await self._stub.RepositoryModelLoad(
                request,
                timeout=self._settings.load_timeout_s,
                metadata=self._settings.admin_metadata(),
            )
        except grpc.aio.AioRpcError as error:
            if error.code() in AWAY:
                raise
            if error.code() in HOPELESS or not await self._is_ready(
                name
            ):  # another process may have loaded it
                raise EngineError(
                    self._say(f"cannot load {version!r}: {error.details()}"), retryable=False
                ) from None
        log.info(
            "model_loaded",
            version=version,
            server=self.address,
            seconds=round(time.monotonic() - began, 3),
        )

    async def _unload_surplus(self, loaded: str, version: str) -> None:
        """Unload the versions of the same run that any process asked longest ago, none with a call
        of this one.

        Triton lets a version end what others have begun; asked again, it is loaded again.
        """
        if not version.startswith("runs/"):
            return
        prefix = triton_name(version.partition("/models/")[0] + "/models/")
        answer = await self._stub.ModelStatistics(
            messages.ModelStatisticsRequest(), timeout=CONTROL_S
        )
        asked = {
            each.name: max(self._used.get(each.name, 0.0), each.last_inference / 1000)
            for each in answer.model_stats
            if each.name.startswith(prefix)
        }
        idle = sorted(
            (when, name)
            for name, when in asked.items()
            if name != loaded and not self.running[name]
        )
        for _, name in idle[: max(0, len(asked) - self._settings.keep_versions)]:
            self.forget(name)
            request = messages.RepositoryModelUnloadRequest(model_name=name)
            await self._stub.RepositoryModelUnload(
                request, timeout=UNLOAD_S, metadata=self._settings.admin_metadata()
            )
            log.info("model_unloaded", model=name, server=self.address)

    async def stream(
        self, name: str, request: messages.ModelInferRequest
    ) -> AsyncIterator[dict[str, Tensor]]:
        """The chunks of one call, each as its tensors by name. Leaving early cancels the call in
        the server.

        Raises TransientFailure, CallRefused or EngineError.
        """
        request.parameters["triton_enable_empty_final_response"].bool_param = True
        call = self._stub.ModelStreamInfer(metadata=ERRORS_END_THE_STREAM)
        try:
            with self._watched(name):
                await call.write(request)
                async for message in call:
                    if message.error_message:
                        self.forget(name)  # another process may have unloaded it
                        raise TransientFailure(self._say(message.error_message))
                    yield _tensors(message.infer_response)
                    if message.infer_response.parameters["triton_final_response"].bool_param:
                        return
        finally:
            call.cancel()

    @contextmanager
    def _watched(self, model: str = "") -> Iterator[None]:
        """Says what a failed call means, and takes a server that does not answer out for a
        while.
        """
        try:
            yield
        except grpc.aio.AioRpcError as error:
            self.forget(model)
            problem = self._say(f"{error.code().name}: {error.details()}")
            if error.code() in REFUSED or any(word in problem for word in LLMAPI_REFUSALS):
                raise CallRefused(problem) from None
            if error.code() in NO_ACCESS or NO_KEY in problem:
                raise AccessRefused(problem) from None
            if error.code() in HOPELESS:
                raise EngineError(problem, retryable=False) from None
            if error.code() in AWAY and not model:
                self._take_out()
            raise TransientFailure(problem) from None
        self._failures = 0

    def _take_out(self) -> None:
        self._ready.clear()
        self._failures += 1
        self._down_until = time.monotonic() + self._settings.backoff_s(self._failures, 1.0)

    def _say(self, problem: str) -> str:
        return self._settings.redact(f"{self.address}: {problem}")


def _tensors(response: messages.ModelInferResponse) -> dict[str, Tensor]:
    pairs = zip(response.outputs, response.raw_output_contents, strict=True)
    return {output.name: read_tensor(output.datatype, raw) for output, raw in pairs}


def _open_channel(address: str, host: str, settings: TritonSettings) -> grpc.aio.Channel:
    """A connection that comes back within seconds of its server, and takes messages of any size we
    keep.
    """
    options: list[tuple[str, int | str]] = [
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 5000),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if not settings.uses_tls:
        return grpc.aio.insecure_channel(address, options=options)
    authority = settings.ca_file.read_bytes() if settings.ca_file else None
    # the address is a number, the certificate names the host
    options.append(("grpc.ssl_target_name_override", host))
    return grpc.aio.secure_channel(
        address, grpc.ssl_channel_credentials(authority), options=options
    )
