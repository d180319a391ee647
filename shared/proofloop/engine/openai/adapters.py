"""Loads adapter versions into a vLLM server while it runs.

vLLM knows an adapter by a name. Ours is the version and the digest of its manifest, so that a
version of a run that was deleted and posed again gets another name. A restarted server has lost all
adapters: a call that finds this out forgets the version, and its next attempt loads it again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path

import structlog

from proofloop.engine.info import ResolveModel, is_adapter
from proofloop.engine.openai import hints
from proofloop.engine.openai.connection import Connection
from proofloop.engine.openai.failure import AttemptFailed, Refusal
from proofloop.engine.openai.settings import OpenAISettings
from proofloop.errors import EngineError, NotFound, StoreError
from proofloop.schema import keys

log = structlog.get_logger(__name__)

LOADED_BEFORE = "has already been loaded"
"""In vLLM's refusal of a name that it has: another process loaded the version."""

CANNOT_LOAD = ("add_lora method failed", "No adapter found")
"""In vLLM's refusals of an adapter that it can never load; the status may be 500."""


class ServerAdapters:
    """The adapter versions that this process uses on a server. Use it on the engine's event
    loop.
    """

    def __init__(
        self, connection: Connection, settings: OpenAISettings, resolve: ResolveModel
    ) -> None:
        self._connection, self._settings, self._resolve = connection, settings, resolve
        self._names: dict[str, str] = {}
        """The names of loaded versions, the least recently used first."""
        self._in_use: Counter[str] = Counter()
        self._loading: dict[str, asyncio.Task[str]] = {}

    def has(self, version: str) -> bool:
        """Whether the version is one that the engine loads."""
        settings = self._settings
        return (
            settings.load_adapters and keys.is_version(version) and version not in settings.models
        )

    @asynccontextmanager
    async def use(self, version: str) -> AsyncIterator[str]:
        """The server's name of a version, which is loaded before the block and stays in it.

        Raises EngineError and AttemptFailed.
        """
        if not self.has(version):
            yield self._settings.served_name(version)
            return
        self._in_use[version] += 1
        try:
            yield await self._loaded(version)
        finally:
            self._in_use[version] -= 1

    def forget(self, version: str) -> None:
        """Load the version again before its next call."""
        self._names.pop(version, None)

    async def _loaded(self, version: str) -> str:
        if name := self._names.pop(version, None):
            self._names[version] = name
            return name
        if version not in self._loading:
            task = asyncio.create_task(self._load(version))
            self._loading[version] = task
            task.add_done_callback(lambda ended: self._end_loading(version, ended))
        return await asyncio.shield(self._loading[version])

    def _end_loading(self, version: str, task: asyncio.Task[str]) -> None:
        del self._loading[version]
        if not task.cancelled():
            task.exception()  # its callers may all have been cancelled

    async def _load(self, version: str) -> str:
        folder = await asyncio.to_thread(self._folder, version)
        name = f"{version}-{folder.name.rpartition('-')[2]}"
        refusal = await self._post("load", {"lora_name": name, "lora_path": str(folder)})
        if refusal and LOADED_BEFORE not in refusal.message():
            raise self._failure(version, refusal)
        log.info("adapter_loaded", version=version, server=self._settings.where)
        self._names[version] = name
        await self._unload_surplus()
        return name

    def _folder(self, version: str) -> Path:
        try:
            folder = self._resolve(version)
        except StoreError as error:
            is_retryable = not isinstance(error, NotFound)
            raise EngineError(
                f"cannot fetch {version!r}: {error}", retryable=is_retryable
            ) from error
        if not is_adapter(folder):
            raise EngineError(
                f"{version!r} has all weights, and load_adapters only loads adapters",
                retryable=False,
                hint="train it with [lora]; or serve it under a name of [engine.settings.models]",
            )
        return folder.absolute()

    def _failure(self, version: str, refusal: Refusal) -> Exception:
        problem = f"cannot load {version!r}: status {refusal.status}: {refusal.message()}"
        problem = self._settings.redact(problem)
        hint = hints.about_adapter(refusal, self._settings)
        is_final = any(text in problem for text in CANNOT_LOAD)
        if not is_final and refusal.kind in ("busy", "quota", "failed", "access"):
            return AttemptFailed(refusal.kind, problem, wait_s=refusal.wait_s(), hint=hint)
        return EngineError(problem, retryable=False, hint=hint)

    async def _unload_surplus(self) -> None:
        """Unload the least recently used versions beyond `adapters_kept`, except those in use."""
        surplus = len(self._names) - self._settings.adapters_kept
        idle = [version for version in self._names if not self._in_use[version]]
        for version in idle[: max(0, surplus)]:
            name = self._names.pop(version)
            refusal = await self._post("unload", {"lora_name": name})
            log.info("adapter_unloaded", version=version, problem=refusal and refusal.message())

    async def _post(self, verb: str, body: dict[str, str]) -> Refusal | None:
        """The server's refusal, or None."""
        status, text = await self._connection.post(f"{verb}_lora_adapter", body)
        return None if status == HTTPStatus.OK else Refusal(status, text)
