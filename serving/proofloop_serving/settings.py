"""The settings file of a served model: which engine, and how much of the machine it may use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from proofloop.errors import ConfigError

FOLDER_VARIABLE = "PROOFLOOP_SERVING_SETTINGS"
"""The environment variable that names the folder of the settings files."""

CHECKOUT_FOLDER = Path(__file__).parents[1] / "settings"
DEFAULT = "nano-cpu.yaml"


class DecoderSettings(BaseModel):
    """Our own decoder: small models, on a CPU or one GPU."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_batch: int = Field(256, ge=1, description="calls of one model answered at once")
    threads: int = Field(1, ge=1)
    tokens_per_pass: int = Field(16_384, ge=1, description="of prompts, padded; a longer prompt goes alone")
    prompt_tokens_kept: int = Field(32_768, ge=0, description="of all models together")


class LocalSettings(DecoderSettings):
    """In this process, which may serve several models."""

    models_kept: int = Field(4, ge=1, description="loaded; those asked longest ago go first, none that is answering")


class TransformersSettings(DecoderSettings):
    """One model, inside Triton."""

    engine: Literal["transformers"]


class TensorRTSettings(BaseModel):
    """TensorRT-LLM; `llm` goes to `tensorrt_llm.LLM(model=..., **llm)` as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Literal["tensorrt_llm"]
    llm: dict[str, Any] = Field(default_factory=dict)
    chat_template_values: dict[str, Any] = Field(default_factory=dict, description="what it sees besides the messages")


Settings = TransformersSettings | TensorRTSettings
_ADAPTER: TypeAdapter[Settings] = TypeAdapter(Annotated[Settings, Field(discriminator="engine")])


def load_settings(name: str) -> Settings:
    """The settings in a file of the settings folder. Raises ConfigError in one line."""
    folder = Path(os.environ.get(FOLDER_VARIABLE) or CHECKOUT_FOLDER)
    if Path(name).name != name:
        raise ConfigError(f"settings {name!r} must be the name of a file in {folder}")
    try:
        return _ADAPTER.validate_python(yaml.safe_load((folder / name).read_text("utf-8")))
    except FileNotFoundError:
        known = ", ".join(sorted(path.name for path in folder.glob("*.yaml")))
        raise ConfigError(f"there are no settings {name!r} in {folder}: known are {known or 'none'}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"settings {name!r} are no YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"][1:])) or "engine"
        raise ConfigError(f"settings {name!r}: {where} = {first['input']!r}: {first['msg']}") from error
