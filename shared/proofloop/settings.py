"""Where things are: addresses, secrets and log level, from the environment (PROOFLOOP_*).

What a run does is its run.toml.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from proofloop.errors import ConfigError


class Settings(BaseSettings):
    """One class, few fields, all optional: a laptop needs none of them."""

    model_config = SettingsConfigDict(env_prefix="PROOFLOOP_", frozen=True, extra="ignore")

    store: Path = Path("proofloop-data")
    """Folder of the local store."""

    log_level: Literal["debug", "info", "warning", "error"] = "warning"

    openai_api_key: SecretStr | None = None
    """The key of the engine `openai`."""

    cache: Path = Path.home() / ".cache" / "proofloop"
    """Where a service keeps the model versions it fetched."""


def load_settings() -> Settings:
    """The settings of this process. Raises ConfigError naming the variable."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = f"PROOFLOOP_{str(first['loc'][0]).upper()}"
        raise ConfigError(
            f"environment variable {name}={first['input']!r} cannot be used: {first['msg']}", "correct or unset it"
        ) from error
