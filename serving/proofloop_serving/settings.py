"""The settings file of a served model: its engine, and how much of the machine it may use."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from proofloop.engine.local import DecoderSettings
from proofloop.errors import ConfigError
from proofloop.schema.validation import first_problem

FOLDER_VARIABLE = "PROOFLOOP_SERVING_SETTINGS"
"""The environment variable that names the folder of the settings files."""

CHECKOUT_FOLDER = Path(__file__).parents[1] / "settings"
DEFAULT = "nano-cpu.yaml"


class TransformersSettings(DecoderSettings):
    """Settings of one model inside Triton on proofloop's decoder."""

    engine: Literal["transformers"]


class TensorRTSettings(BaseModel):
    """Settings of TensorRT-LLM; `llm` is passed to `tensorrt_llm.LLM(model=..., **llm)`
    unchanged.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Literal["tensorrt_llm"]
    llm: dict[str, Any] = Field(default_factory=dict)
    chat_template_values: dict[str, Any] = Field(
        default_factory=dict, description="inputs of the chat template besides the messages"
    )


Settings = TransformersSettings | TensorRTSettings
_ADAPTER: TypeAdapter[Settings] = TypeAdapter(Annotated[Settings, Field(discriminator="engine")])


def load_settings(name: str) -> Settings:
    """Read a file of the settings folder. Raises ConfigError with a one-line message."""
    folder = Path(os.environ.get(FOLDER_VARIABLE) or CHECKOUT_FOLDER)
    if Path(name).name != name:
        raise ConfigError(f"settings {name!r} must be the name of a file in {folder}")
    try:
        return _ADAPTER.validate_python(yaml.safe_load((folder / name).read_text("utf-8")))
    except FileNotFoundError:
        known = ", ".join(sorted(path.name for path in folder.glob("*.yaml")))
        found = f"it has {known}" if known else "it has no settings files"
        raise ConfigError(f"no settings file {name!r} in {folder}: {found}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"settings file {name!r} is not valid YAML: {' '.join(str(error).split())}"
        ) from error
    except ValidationError as error:
        problem = first_problem(error)
        # the first name of the path is the engine, not a key
        problem = replace(problem, path=problem.path[1:])
        raise ConfigError(f"settings {name!r}: {problem}") from error
