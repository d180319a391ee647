"""Parts that other installed packages add, found by entry point: domains, engines, prompt packs."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from proofloop.errors import ConfigError


def plugin_names(group: str) -> tuple[str, ...]:
    """The names of all entry points of a group, sorted."""
    return tuple(sorted({point.name for point in entry_points(group=group)}))


def load_plugin(group: str, name: str) -> Any | None:
    """The object behind an entry point, or None if no package has one of that name.

    Raises ConfigError if it cannot be imported. If two packages use one name, the first one counts.
    """
    for point in entry_points(group=group, name=name):
        try:
            return point.load()
        except (ImportError, AttributeError) as error:
            what = group.removeprefix("proofloop.").replace("_", " ").removesuffix("s")
            raise ConfigError(
                f"{what} {name!r} cannot be loaded: {error}", f"install {package_of(point)} again"
            ) from error
    return None


def package_of(point: EntryPoint) -> str:
    """The distribution that has the entry point, or else its module."""
    return point.dist.name if point.dist else point.module
