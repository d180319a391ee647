"""Where things are: addresses, secrets and log level, from the environment (PROOFLOOP_*).

Any of them can also be a file: PROOFLOOP_SECRETS names a folder, and in it the file proofloop_broker holds
PROOFLOOP_BROKER.

What a run does is its run.toml.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

from pydantic import Field, FilePath, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from proofloop.errors import ConfigError


class Settings(BaseSettings):
    """One class, few fields, all optional: a laptop needs none of them."""

    model_config = SettingsConfigDict(env_prefix="PROOFLOOP_", frozen=True, extra="ignore", env_ignore_empty=True)

    store: Path = Path("proofloop-data")
    """Folder of the local store."""

    log_level: Literal["debug", "info", "warning", "error"] = "warning"

    openai_api_key: SecretStr | None = None
    """The key of the engine `openai`."""

    triton_key: SecretStr | None = None
    """What a Triton server asks of those who load and unload its models."""

    broker: SecretStr | None = None
    """The broker as amqp://user:password@host:5672/vhost; amqps:// for TLS."""

    broker_ca: FilePath | None = None
    """Who signed the broker's certificate: a PEM file; without it those of SSL_CERT_FILE or the system are trusted."""

    broker_cert: FilePath | None = None
    """The certificate by which a broker that asks for one knows this process: a PEM file."""

    broker_key: FilePath | None = None
    """The private key of that certificate: a PEM file without a password."""

    broker_api: SecretStr | None = None
    """The broker's management API as http://user:password@host:15672, if a service may look at its settings there."""

    namespace: str = Field("proofloop", pattern=r"^[A-Za-z0-9._-]{1,100}\z")
    """How the names of all queues begin: two installations on one vhost need two."""

    longest_call_s: float = Field(7200.0, gt=0)
    """The longest that one message may be worked on; the broker's consumer_timeout must be longer."""

    grace_s: float = Field(30.0, ge=0)
    """How long a service that is asked to stop waits for what it cannot cancel."""

    drain_s: float = Field(0.0, ge=0)
    """How long a service that is asked to stop lets its running calls finish before it cancels them."""

    task_events: bool = False
    """Whether a service sends Celery's task events, which Flower shows, from its start on."""

    metrics_port: int = Field(0, ge=0, le=65535)
    """Where a service answers /metrics, /healthz and /readyz; 0: nowhere."""

    metrics_host: str = "0.0.0.0"
    """The address it listens on for them; no secret is shown there."""

    review_token: SecretStr | None = None
    """The password of the page to grade on; without one it answers on this machine only."""

    s3_endpoint: str | None = Field(None, pattern=r"^https?://[^/@]+/?\z")
    """The object store as https://host:port; without it the store is a local folder."""

    s3_bucket: str = "proofloop"
    s3_prefix: str = ""
    s3_region: str = "us-east-1"
    s3_access_key: SecretStr | None = None
    s3_secret_key: SecretStr | None = None

    cache: Path = Path.home() / ".cache" / "proofloop"
    """Where a service keeps the model versions it fetched."""


def load_settings() -> Settings:
    """The settings of this process. Raises ConfigError naming the variable."""
    secrets = os.environ.get("PROOFLOOP_SECRETS")
    if secrets and not Path(secrets).is_dir():
        raise ConfigError(f"PROOFLOOP_SECRETS={secrets!r} is no folder", "name the folder with the secret files")
    try:
        settings = Settings(_secrets_dir=secrets)
    except ValidationError as error:
        first = error.errors()[0]
        name = f"PROOFLOOP_{str(first['loc'][0]).upper()}"
        raise ConfigError(
            f"environment variable {name}={_shown(first['input'])!r} cannot be used: {first['msg']}",
            "correct or unset it",
        ) from error
    _check_client_certificate(settings)
    return settings


def read_secret(variable: str) -> SecretStr | None:
    """A secret under a name that a run file chose: of the environment, else a file in PROOFLOOP_SECRETS.

    Raises ConfigError for a file that cannot be read.
    """
    folder = os.environ.get("PROOFLOOP_SECRETS")
    file = Path(folder, variable.lower()) if folder else None
    try:
        value = os.environ.get(variable) or (file.read_text() if file and file.is_file() else "")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the secret in {file} cannot be read: {type(error).__name__}", "see to its rights"
        ) from error
    return SecretStr(value.strip()) if value.strip() else None


def _shown(value: object) -> str:
    """A value without its secrets: an address may hold a password, and a file's name may be mistaken for its text."""
    return re.sub(r".*@", "***@", str(value).partition("\n")[0])


def _check_client_certificate(settings: Settings) -> None:
    if settings.broker_cert and settings.broker and settings.broker.get_secret_value().startswith("amqp://"):
        raise ConfigError(
            "PROOFLOOP_BROKER_CERT is set and PROOFLOOP_BROKER is an amqp:// address, which is not encrypted",
            "write the address as amqps://, with the port of the broker's TLS listener",
        )
    if (settings.broker_cert is None) == (settings.broker_key is None):
        return
    names = ["PROOFLOOP_BROKER_CERT", "PROOFLOOP_BROKER_KEY"]
    given, missing = names if settings.broker_cert else reversed(names)
    raise ConfigError(f"{given} is set and {missing} is not", "set both to use a client certificate, or neither")
