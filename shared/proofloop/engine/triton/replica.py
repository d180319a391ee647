"""One Triton server: its connection, its ready models, loading and unloading.

Use it only on the engine's event loop. A failed call clears the list of ready models: the server
may have restarted, and a restarted server has lost the models that clients loaded.
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
from proofloop.schema import keys

log = structlog.get_logger(__name__)

CONTROL_S = 10.0
"""The timeout of a status request; loading has its own."""

UNLOAD_S = 3600
"""The timeout of unloading: the model first completes its running requests."""

ERRORS_END_THE_STREAM = (("triton_grpc_error", "true"),)
"""Metadata that makes Triton send gRPC status codes. Its default is error texts without a code."""

REFUSED = frozenset({grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE})
NO_ACCESS = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED})
PERMANENT = NO_ACCESS | {grpc.StatusCode.UNIMPLEMENTED}
UNAVAILABLE = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
)
NO_KEY = "This protocol is restricted"
"""Triton's message, sent as UNAVAILABLE, for a missing or wrong key for model control."""

OTHER_RUNS_S = 300.0
"""Each stage of a curriculum is a run of its own. If nobody has called a model of another run for
this long, the process that loaded it unloads it.
"""

LLMAPI_REFUSALS = ("prompt length", "max_seq_len", "max_num_tokens", "max_input_len")
"""Parts of TensorRT-LLM's messages for a prompt that is too long. Its model sends them as INTERNAL.
"""


class TransientFailure(Exception):
    """One attempt failed; a retry may succeed."""


@dataclass(frozen=True)
class Interface:
    """The inputs of a ready model. A model with `messages` is proofloop's: it applies its chat
    template and reports its tokens.
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
        self._pending: dict[str, asyncio.Task[Interface | None]] = {}
        # when this process last loaded or called each model: Unix time, as Triton's statistics
        self._used: dict[str, float] = {}
        self._loaded: set[str] = set()
        self._failures, self._down_until = 0, 0.0

    @property
    def is_up(self) -> bool:
        """False for a backoff time after the server did not answer."""
        return time.monotonic() >= self._down_until

    async def close(self) -> None:
        await self._channel.close()

    def forget(self, name: str) -> None:
        """Check again whether the model is ready before the next call."""
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
        """The interface of the model, after loading it if necessary; None if it is not ready and
        this engine must not load it.

        Concurrent callers share one request. Raises EngineError if loading fails, TransientFailure
        if the server does not answer.
        """
        if name in self._ready:
            return self._ready[name]
        if name not in self._pending:
            self._pending[name] = asyncio.create_task(self._make_ready(name, version))
            self._pending[name].add_done_callback(lambda task: self._settle_interface(name, task))
        return await asyncio.shield(self._pending[name])

    def _settle_interface(self, name: str, task: asyncio.Task[Interface | None]) -> None:
        del self._pending[name]
        if not task.cancelled() and task.exception() is None and (found := task.result()):
            self._ready[name] = found

    async def _make_ready(self, name: str, version: str) -> Interface | None:
        with self._translate_errors():
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
        """Load a model that is in no repository: the request holds its config and its one line of
        code.
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
            if error.code() in UNAVAILABLE:
                raise
            # Another process may have loaded it.
            if error.code() in PERMANENT or not await self._is_ready(name):
                raise EngineError(
                    self._message(f"cannot load {version!r}: {error.details()}"), retryable=False
                ) from None
        self._loaded.add(name)
        log.info(
            "model_loaded",
            version=version,
            server=self.address,
            seconds=round(time.monotonic() - began, 3),
        )

    async def _unload_surplus(self, loaded: str, version: str) -> None:
        """Unload the least recently used versions of the same run, and what this process loaded for
        runs that are over, except models with a running call of this process.

        Triton first completes the calls of other processes; their next call loads the version
        again.
        """
        if not keys.is_version(version):
            return
        prefix = triton_name(version.partition("/models/")[0] + "/models/")
        answer = await self._stub.ModelStatistics(
            messages.ModelStatisticsRequest(), timeout=CONTROL_S
        )
        idle = sorted(
            (max(self._used.get(each.name, 0.0), each.last_inference / 1000), each.name)
            for each in answer.model_stats
            if each.name != loaded and not self.running[each.name]
        )
        kept = sum(each.name.startswith(prefix) for each in answer.model_stats)
        surplus = max(0, kept - self._settings.keep_versions)
        of_run = [name for _, name in idle if name.startswith(prefix)]
        over_s = time.time() - OTHER_RUNS_S
        of_others = [
            name
            for when, name in idle
            if when < over_s and name in self._loaded and not name.startswith(prefix)
        ]
        for name in (*of_run[:surplus], *of_others):
            self.forget(name)
            self._loaded.discard(name)
            request = messages.RepositoryModelUnloadRequest(model_name=name)
            await self._stub.RepositoryModelUnload(
                request, timeout=UNLOAD_S, metadata=self._settings.admin_metadata()
            )
            log.info("model_unloaded", model=name, server=self.address)

    async def stream(
        self, name: str, request: messages.ModelInferRequest
    ) -> AsyncIterator[dict[str, Tensor]]:
        """The chunks of one call, each as tensors by name. Closing the iterator early cancels the
        call on the server.

        Raises TransientFailure, CallRefused or EngineError.
        """
        call = self._stub.ModelStreamInfer(metadata=ERRORS_END_THE_STREAM)
        try:
            with self._translate_errors(name):
                await call.write(request)
                await call.done_writing()
                async for message in call:
                    if message.error_message:
                        self.forget(name)  # another process may have unloaded it
                        raise TransientFailure(self._message(message.error_message))
                    yield _tensors(message.infer_response)
        finally:
            call.cancel()

    @contextmanager
    def _translate_errors(self, model: str = "") -> Iterator[None]:
        """Raise the right error for a failed call, and mark an unavailable server as down for a
        while.
        """
        try:
            yield
        except grpc.aio.AioRpcError as error:
            self.forget(model)
            problem = self._message(f"{error.code().name}: {error.details()}")
            if error.code() in REFUSED or any(word in problem for word in LLMAPI_REFUSALS):
                raise CallRefused(problem) from None
            if error.code() in NO_ACCESS or NO_KEY in problem:
                raise AccessRefused(problem) from None
            if error.code() in PERMANENT:
                raise EngineError(problem, retryable=False) from None
            if error.code() in UNAVAILABLE and not model:
                self._mark_down()
            raise TransientFailure(problem) from None
        self._failures = 0

    def _mark_down(self) -> None:
        self._ready.clear()
        self._failures += 1
        self._down_until = time.monotonic() + self._settings.backoff_s(self._failures, 1.0)

    def _message(self, problem: str) -> str:
        return self._settings.redact(f"{self.address}: {problem}")


def _tensors(response: messages.ModelInferResponse) -> dict[str, Tensor]:
    pairs = zip(response.outputs, response.raw_output_contents, strict=True)
    return {output.name: read_tensor(output.datatype, raw) for output, raw in pairs}


def _open_channel(address: str, host: str, settings: TritonSettings) -> grpc.aio.Channel:
    """A connection that reconnects within seconds of the server's return, without a limit on
    message size.
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
