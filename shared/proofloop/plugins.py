"""Parts that other installed packages add, found by entry point: domains, engines, prompt packs,
stores. An error inside such a package names the package.
"""

from __future__ import annotations

import traceback
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from proofloop.errors import ConfigError, PluginError, install_hint, needs

GROUPS_WITH_CODE = ("proofloop.domains", "proofloop.engines", "proofloop.stores")


def plugin_names(group: str) -> tuple[str, ...]:
    """The names of all entry points of a group, sorted."""
    return tuple(sorted({point.name for point in entry_points(group=group)}))


def load_plugin(group: str, name: str) -> Any | None:
    """The object behind an entry point, or None if no package has one of that name.

    Raises ConfigError if it cannot be imported. If two packages use one name, the first one counts.
    """
    for point in entry_points(group=group, name=name):
        return load_point(point)
    return None


def load_point(point: EntryPoint) -> Any:
    """The object behind an entry point. Raises ConfigError if it cannot be imported."""
    try:
        return point.load()
    except Exception as error:  # the import runs any code
        what = point.group.removeprefix("proofloop.").replace("_", " ").removesuffix("s")
        raise ConfigError(
            f"{what} {point.name!r} cannot be loaded: {_described(error)}",
            f"correct or reinstall the package {package_of(point)}; its entry point names"
            f" {point.value}",
        ) from error


def has_command(name: str) -> bool:
    """Whether the part of proofloop that has this command is installed."""
    return bool(entry_points(group="proofloop.commands", name=name))


def load_command(name: str, part: str) -> Any:
    """The function of another part of proofloop, such as the trainer, behind a command.

    Raises ConfigError with the way to install the part.
    """
    for point in entry_points(group="proofloop.commands", name=name):
        with needs(part):
            return point.load()
    raise ConfigError(f"the {part} is not installed", install_hint(part))


def plugin_error(error: Exception) -> PluginError | None:
    """The error of another package's domain, engine or store, or None if none of them is in the
    traceback.
    """
    packages = {
        point.module.partition(".")[0]: package_of(point)
        for group in GROUPS_WITH_CODE
        for point in entry_points(group=group)
    }
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        module = frame.f_globals.get("__name__", "")
        if package := packages.get(module.partition(".")[0]):
            return PluginError(
                f"package {package} failed in {module}, line {line}: {_described(error)}",
                "correct the package, or report this to its authors; `proofloop -v` prints the"
                " traceback",
            )
    return None


def package_of(point: EntryPoint) -> str:
    """The distribution that has the entry point, or else its module."""
    return point.dist.name if point.dist else point.module


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
