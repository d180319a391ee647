"""The servers of one engine: looked up by name, left out while they do not answer, chosen for each
call.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Collection

import structlog

from proofloop.engine.triton.replica import Replica, TransientFailure
from proofloop.engine.triton.routing import pick
from proofloop.engine.triton.settings import TritonSettings
from proofloop.errors import EngineError

log = structlog.get_logger(__name__)


class Replicas:
    """All of it lives on the engine's event loop."""

    def __init__(self, settings: TritonSettings) -> None:
        self._settings = settings
        self._replicas: dict[str, Replica] = {}
        self._looked_up_at = -float("inf")
        self._looking_up = asyncio.Lock()

    async def choose(self, affinity: str, version: str, failed: Collection[str]) -> Replica:
        """The server for one call, among those that answer and have its model or may load it.

        One on which the call `failed` before is only asked again where there is no other.

        Raises TransientFailure where there is none.
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
            raise TransientFailure(
                f"no Triton of {', '.join(self._settings.endpoints)} answers and has {version!r}"
            )
        up = {address: replica for address, replica in up.items() if address not in failed} or up
        load = {address: replica.running.total() for address, replica in up.items()}
        return up[pick(affinity, load, self._settings.load_factor)]

    async def prepare(self, version: str) -> None:
        """Make a version ready on every server that answers. Raises EngineError."""
        name = self._settings.name_of(version)
        ready = [await _has(replica, name, version) for replica in await self._up()]
        if not any(ready):
            where = ", ".join(self._settings.endpoints)
            raise EngineError(f"no Triton of {where} answers and has {version!r}", retryable=True)

    async def close(self) -> None:
        for replica in self._replicas.values():
            await replica.close()

    async def _up(self) -> list[Replica]:
        if (
            not self._replicas or not self._looking_up.locked()
        ):  # one looks anew, the others use those they know
            async with self._looking_up:
                if time.monotonic() - self._looked_up_at > self._settings.resolve_every_s:
                    await self._look_up()
        return [replica for replica in self._replicas.values() if replica.is_up]

    async def _look_up(self) -> None:
        """Take in new addresses, and let go of those that are gone and have nothing to do.

        While a name cannot be looked up, all that are known stay; where none is known the next call
        asks again.
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
        log.info("triton_away", problem=str(failure))
        return False


async def _addresses(endpoint: str) -> dict[str, str]:
    """The host's name by each address it has now; none while the name cannot be looked up."""
    host, _, port = endpoint.rpartition(":")
    host = host.strip("[]")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, int(port), type=socket.SOCK_STREAM
        )
    except socket.gaierror as error:
        log.warning("triton_not_found", endpoint=endpoint, problem=str(error))
        return {}
    family = min(
        each[0] for each in found
    )  # IPv4 where a host has both: its servers are not to count twice
    hosts = [str(sockaddr[0]) for each, *_, sockaddr in found if each == family]
    return {f"[{each}]:{port}" if ":" in each else f"{each}:{port}": host for each in hosts}
