"""The Triton servers of one engine: looks up their addresses, skips unavailable ones, and chooses
one for each call.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Collection

import structlog

from proofloop.engine.triton.replica import Replica, TransientFailure
from proofloop.engine.triton.routing import pick_replica
from proofloop.engine.triton.settings import TritonSettings
from proofloop.errors import EngineError

log = structlog.get_logger(__name__)


class Replicas:
    """The known servers. Use it only on the engine's event loop."""

    def __init__(self, settings: TritonSettings) -> None:
        self._settings = settings
        self._replicas: dict[str, Replica] = {}
        self._looked_up_at = -float("inf")
        self._looking_up = asyncio.Lock()

    async def choose(self, affinity: str, version: str, failed: Collection[str]) -> Replica:
        """The server for one call, among the available ones that have its model or may load it.

        A server on which the call `failed` before is the last choice. Raises TransientFailure
        without any server.
        """
        up = {replica.address: replica for replica in await self._up()}
        if not self._settings.may_load(version):
            name = self._settings.name_of(version)
            up = {
                address: replica
                for address, replica in up.items()
                if await _has(replica, name, version)
            }
        if not up:
            raise TransientFailure(self._no_server(version))
        up = {address: replica for address, replica in up.items() if address not in failed} or up
        load = {address: replica.running.total() for address, replica in up.items()}
        return up[pick_replica(affinity, load, self._settings.load_factor)]

    async def prepare(self, version: str) -> None:
        """Load a version on every available server. Raises EngineError if no server has it
        afterwards.
        """
        name = self._settings.name_of(version)
        ready = [await _has(replica, name, version) for replica in await self._up()]
        if not any(ready):
            raise EngineError(self._no_server(version), retryable=True)

    async def close(self) -> None:
        for replica in self._replicas.values():
            await replica.close()

    def _no_server(self, version: str) -> str:
        return (
            f"no available Triton server of {', '.join(self._settings.endpoints)} has {version!r}"
        )

    async def _up(self) -> list[Replica]:
        # one call looks up the addresses; the others use the known ones meanwhile
        if not self._replicas or not self._looking_up.locked():
            async with self._looking_up:
                if time.monotonic() - self._looked_up_at > self._settings.resolve_every_s:
                    await self._look_up()
        return [replica for replica in self._replicas.values() if replica.is_up]

    async def _look_up(self) -> None:
        """Add new addresses and drop those that are gone, once they have no running calls.

        If a lookup fails, all known servers stay. If no server is known, the next call looks up
        again.
        """
        answers = [await _addresses(endpoint) for endpoint in self._settings.endpoints]
        found = {address: host for answer in answers for address, host in answer.items()}
        for address, host in found.items():
            if address not in self._replicas:
                self._replicas[address] = Replica(address, host, self._settings)
        if self._replicas:
            self._looked_up_at = time.monotonic()
        if all(answers):
            for address in [each for each in self._replicas if each not in found]:
                if not self._replicas[address].running.total():
                    await self._replicas.pop(address).close()


async def _has(replica: Replica, name: str, version: str) -> bool:
    try:
        return await replica.interface(name, version) is not None
    except TransientFailure as failure:
        log.info("triton_unavailable", problem=str(failure))
        return False


async def _addresses(endpoint: str) -> dict[str, str]:
    """The host name by each of its current addresses; empty if the lookup fails."""
    host, _, port = endpoint.rpartition(":")
    host = host.strip("[]")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, int(port), type=socket.SOCK_STREAM
        )
    except socket.gaierror as error:
        log.warning("triton_lookup_failed", endpoint=endpoint, problem=str(error))
        return {}
    # IPv4 if a host has both: a server must not count twice
    family = min(each[0] for each in found)
    hosts = [str(sockaddr[0]) for each, *_, sockaddr in found if each == family]
    return {f"[{each}]:{port}" if ":" in each else f"{each}:{port}": host for each in hosts}
