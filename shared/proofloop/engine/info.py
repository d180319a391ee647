"""The description of an engine, known before it is opened.

An entry point of the group `proofloop.engines` names an `EngineInfo`; the engines of this package
have theirs in `proofloop.engine.openai`, `.triton`, `.simulated` and `.local`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from proofloop.engine.base import Engine
from proofloop.engine.settings import EngineSettings, changeable_fields
from proofloop.errors import install_hint

ResolveModel = Callable[[str], Path]
"""Returns the local folder of a model version."""

OpenEngine = Callable[[Mapping[str, object], ResolveModel], Engine]
"""Opens an engine with the settings of a run file's [engine.settings]. Raises ConfigError."""


ADAPTER = "adapter_config.json"
"""The file that makes a model's folder an adapter: a LoRA in PEFT's format, weights that are added
to those of a base model.
"""


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds an adapter instead of a whole model."""
    return (folder / ADAPTER).is_file()


@dataclass(frozen=True)
class EngineInfo:
    """Describes an engine. Import what it needs inside `open`: the description must load fast."""

    open: OpenEngine
    settings: type[EngineSettings] = EngineSettings
    on_server: bool = False
    """Its models run on a server, which any process may call."""

    needs_model_names: bool = True
    """[models] must name each role's model. False for an engine that serves "nano-base"."""

    loads_folders: bool = False
    """Its models are folders in Hugging Face format: they are looked for before it is opened."""

    serves_new_versions: bool = True
    """It can serve the versions that training publishes."""

    loads_adapters: str = ""
    """The setting with which it can serve new versions that are adapters."""

    is_simulated: bool = False
    """It makes its answers up: a report then calls the run a rehearsal."""

    requires: tuple[str, ...] = ()
    """Modules that must be installed."""

    part: str = ""
    """The part of proofloop that installs `requires`, as `install_hint` takes it."""

    @property
    def is_installed(self) -> bool:
        return all(find_spec(module) is not None for module in self.requires)

    @property
    def install_hint(self) -> str:
        """The command that installs what is missing."""
        return install_hint(self.part) if self.part else f"install {' '.join(self.requires)}"

    @property
    def max_concurrency(self) -> float:
        """Calls in flight where the run file sets no `max_concurrency`; infinity for no limit."""
        field = self.settings.model_fields.get("max_concurrency")
        default = field.default if field else None
        return float(default) if isinstance(default, int | float) else math.inf

    @cached_property
    def changeable(self) -> frozenset[str]:
        """The settings that a resumed run may change: those marked `MayChange`."""
        return changeable_fields(self.settings)
