"""The record `Role`, the installed roles, and the handler that adopts a published model version."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

import structlog

from proofloop.config.run_file import RunSpec
from proofloop.engine.base import prepare
from proofloop.errors import ConfigError, EngineError, Reject, Retry, install_hint, needs
from proofloop.runs.model_registry import is_adopted, put_in_service, served_log
from proofloop.schema.events import Event, ModelPublished
from proofloop.store.model_folders import verify_version
from proofloop.worker.tools import Tools

log = structlog.get_logger()

Handler = Callable[[Any, Tools], Iterator[Event]]

PREPARE_AGAIN_S = 5.0
"""How long a published version waits before an engine that is away is asked again to load it."""


@dataclass(frozen=True)
class Role:
    """One of the five services: the routing keys it listens to, each with its handler.

    `check` raises ConfigError for a run that it cannot do. `close` frees what the role holds
    between messages, such as models in training.
    """

    name: str
    handlers: Mapping[str, Handler]
    check: Callable[[RunSpec], None] = lambda spec: None
    close: Callable[[], None] = lambda: None


def load_role(name: str) -> Role:
    """The installed role of that name. Raises ConfigError."""
    found = {point.name: point for point in entry_points(group="proofloop.roles")}
    if name not in found:
        raise ConfigError(
            f"role {name!r} is not installed",
            f"installed: {', '.join(sorted(found)) or 'none'}; {install_hint(name)}",
        )
    with needs(name):
        role = found[name].load()()
    assert isinstance(role, Role)
    return role


def adopt(event: ModelPublished, tools: Tools) -> Iterator[Event]:
    """Handles `ModelPublished` for a role with a model: serve the version from the next message on.

    An event that arrives after a later version's event changes nothing.
    """
    if is_adopted(served_log(tools.store, event.run_id, event.role), event.version):
        return
    verify_version(tools.store, event.version)  # a damaged version leaves the old one in service
    try:
        prepare(tools.engine(tools.runs.spec(event.run_id), event.role), event.version)
    except EngineError as error:
        problem = (
            f"the engine cannot load {event.version!r}, the old version stays in service: {error}"
        )
        if not error.retryable:
            raise Reject(problem) from error
        if tools.health.is_long_unloaded(event.run_id, event.role):
            log.warning("version_not_loaded", reason=problem)
        raise Retry(problem, after_s=PREPARE_AGAIN_S) from error
    tools.health.add_loaded(event.run_id, event.role)
    put_in_service(tools.store, event.run_id, event.role, event.version)
    yield from ()
