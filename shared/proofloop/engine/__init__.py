"""Engines, which answer model calls: `openai/`, `triton/`, `simulated/`, `local.py`.

Other packages add engines by an entry point of the group `proofloop.engines` (see
`info.EngineInfo`). This module finds and opens them by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points

from proofloop.engine.base import Engine
from proofloop.engine.info import EngineInfo, ResolveModel
from proofloop.errors import ConfigError
from proofloop.plugins import load_point

ENTRY_POINT_GROUP = "proofloop.engines"

BUILT_IN = {
    name: EntryPoint(name, f"proofloop.engine.{name}:ENGINE", ENTRY_POINT_GROUP)
    for name in ("local", "openai", "simulated", "triton")
}
"""Each is imported when a run needs it, as an engine of another package is."""


def open_engine(kind: str, settings: Mapping[str, object], resolve_model: ResolveModel) -> Engine:
    """Open an engine. Raises ConfigError for an engine that is not installed, and for invalid
    settings.
    """
    info = get_engine(kind)
    if not info.is_installed:
        others = ", ".join(installed_engines())
        raise ConfigError(
            f'engine "{kind}" is not installed', f"{info.install_hint}; or use one of {others}"
        )
    return info.open(settings, resolve_model)


def installed_engines(*, trainable: bool = False) -> tuple[str, ...]:
    """The names of the engines that this machine can open, or of those that training can use."""
    return tuple(name for name in sorted(_entry_points()) if _is_usable(name, trainable))


def _is_usable(name: str, trainable: bool) -> bool:
    try:
        info = get_engine(name)
    except ConfigError:
        return False  # its package is broken; a run that names the engine raises the error
    return info.is_installed and (info.serves_new_versions or not trainable)


def find_engine(kind: str) -> EngineInfo | None:
    """The description of an engine; None for a name that no package here describes.

    Raises ConfigError for an engine whose package is broken.
    """
    # our own first: the search for others reads the metadata of every package, 7 ms
    point = BUILT_IN.get(kind) or _entry_points().get(kind)
    return _load(point) if point else None


def get_engine(kind: str, *, table: str = "engine", trainable: bool = False) -> EngineInfo:
    """The description of an engine. Raises ConfigError for an unknown name.

    `table` is the table of the file that names the engine; the hint lists the installed engines, or
    those that training can use.
    """
    if info := find_engine(kind):
        return info
    others = ", ".join(installed_engines(trainable=trainable))
    raise ConfigError(f'unknown engine "{kind}" in [{table}] kind', f"use one of {others}")


def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)} | BUILT_IN


def _load(point: EntryPoint) -> EngineInfo:
    info = load_point(point)
    if not isinstance(info, EngineInfo):
        raise ConfigError(
            f"engine {point.name!r} cannot be loaded: {point.value} is not an EngineInfo",
            "let the entry point name a proofloop.engine.info.EngineInfo",
        )
    return info
