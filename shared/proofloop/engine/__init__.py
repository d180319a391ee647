"""Opens the engine that a run names: `openai`, `triton` and `simulated` are here, others are found
by entry point.

An entry point of the group `proofloop.engines` is a callable `(settings, resolve_model) -> Engine`;
`resolve_model` turns a model's version into its local folder.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import cast

from proofloop.engine.base import Engine
from proofloop.engine.settings import read_settings
from proofloop.errors import ConfigError, install_hint

ENTRY_POINT_GROUP = "proofloop.engines"
PARTS = {"local": "serving"}  # of our own engines, those that are installed apart

ON_SERVERS = ("openai", "triton")
"""Engines whose models run elsewhere: whoever reaches the server can ask them, at no cost to
itself.
"""

ResolveModel = Callable[[str], Path]
OpenEngine = Callable[[Mapping[str, object], ResolveModel], Engine]


def open_engine(kind: str, settings: Mapping[str, object], resolve_model: ResolveModel) -> Engine:
    """Open an engine. Raises ConfigError for a kind that is not installed and for settings it does
    not know.
    """
    return _find(kind)(settings, resolve_model)


def installed_engines() -> tuple[str, ...]:
    """The kinds that `open_engine` knows on this machine."""
    return tuple(
        sorted({*BUILT_IN, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))})
    )


def check_kind(kind: str, without: Collection[str] = (), table: str = "engine") -> None:
    """Raises ConfigError for an engine that is neither installed here nor one of ours that is
    installed apart.

    Its hint names those that are installed, `without` some that are no way out; `table` is where
    the file names it.
    """
    if kind not in {*installed_engines(), *PARTS}:
        raise _unknown(kind, without, table)


def _open_openai(settings: Mapping[str, object], _: ResolveModel) -> Engine:
    from proofloop.engine.openai.endpoints import open_openai

    return open_openai(settings)


def _open_simulated(settings: Mapping[str, object], _: ResolveModel) -> Engine:
    from proofloop.engine.simulated.answers import SimulatedSettings
    from proofloop.engine.simulated.engine import SimulatedEngine

    return SimulatedEngine(read_settings(SimulatedSettings, settings, "simulated"))


def _open_triton(settings: Mapping[str, object], _: ResolveModel) -> Engine:
    from proofloop.config.settings import load_settings
    from proofloop.engine.triton.settings import TritonSettings

    try:
        from proofloop.engine.triton.engine import TritonEngine
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'engine "triton" needs {error.name}', install_hint("[cluster]")
        ) from error
    if (key := load_settings().triton_key) is not None:
        settings = {**settings, "admin_key": key}
    return TritonEngine(read_settings(TritonSettings, settings, "triton"))


BUILT_IN: dict[str, OpenEngine] = {
    "openai": _open_openai,
    "simulated": _open_simulated,
    "triton": _open_triton,
}


def _find(kind: str) -> OpenEngine:
    if kind in BUILT_IN:
        return BUILT_IN[kind]
    for point in entry_points(group=ENTRY_POINT_GROUP, name=kind):
        return _load(point)
    raise _unknown(kind)


def _unknown(kind: str, without: Collection[str] = (), table: str = "engine") -> ConfigError:
    other = f"use one of {', '.join(name for name in installed_engines() if name not in without)}"
    if kind in PARTS:
        return ConfigError(
            f'engine "{kind}" is not installed', f"{install_hint(PARTS[kind])}; or {other}"
        )
    return ConfigError(f'unknown engine "{kind}" in [{table}] kind', other)


def _load(point: EntryPoint) -> OpenEngine:
    try:
        return cast(OpenEngine, point.load())
    except ImportError as error:
        again = (
            install_hint(PARTS[point.name])
            if point.name in PARTS
            else f"install {point.value} again"
        )
        raise ConfigError(f'engine "{point.name}" cannot be loaded: {error}', again) from error
