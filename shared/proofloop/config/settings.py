"""The settings of a process, from environment variables (PROOFLOOP_*): addresses, secrets, logs.

A setting can also come from a file: PROOFLOOP_SECRETS names a folder, and its file proofloop_broker
has the value of PROOFLOOP_BROKER. The settings of a run are in its run file.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

from pydantic import Field, FilePath, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from proofloop.errors import ConfigError
from proofloop.schema.validation import first_problem


class Settings(BaseSettings):
    """All settings. Each is optional; a laptop needs none."""

    model_config = SettingsConfigDict(
        env_prefix="PROOFLOOP_", frozen=True, extra="ignore", env_ignore_empty=True
    )

    store: Path = Path("proofloop-data")
    """Folder of the local store."""

    store_url: SecretStr | None = None
    """The address of a store of another package, as SCHEME://... It takes the place of the local
    store and of S3.
    """

    log_level: Literal["debug", "info", "warning", "error"] = "warning"
    """The least important log events to print."""

    broker: SecretStr | None = None
    """The broker's address as amqp://user:password@host:5672/vhost; amqps:// for TLS."""

    broker_password: SecretStr | None = None
    """The password for `broker` and `broker_api` if they are written as amqp://user@host. Here any
    character is itself; inside an address special characters are written as %2F.
    """

    broker_ca: FilePath | None = None
    """A PEM file with the authority that signed the broker's certificate. Default: SSL_CERT_FILE or
    the system's.
    """

    broker_cert: FilePath | None = None
    """A PEM file with this process's client certificate, for a broker that requires one."""

    broker_key: FilePath | None = None
    """A PEM file with the private key of `broker_cert`, without a password."""

    broker_api: SecretStr | None = None
    """The broker's management API as http://user:password@host:15672. Services read the broker's
    settings there.
    """

    namespace: str = Field("proofloop", pattern=r"^[A-Za-z0-9._-]{1,100}\z")
    """The prefix of all queue names. Two installations on one vhost need different ones."""

    longest_call_s: float = Field(7200.0, gt=0)
    """The longest time for handling one message. The broker's consumer_timeout must be longer."""

    grace_s: float = Field(30.0, ge=0)
    """How long a stopping service waits for work that it cannot cancel."""

    drain_s: float = Field(0.0, ge=0)
    """How long a stopping service lets its running model calls finish before it cancels them."""

    task_events: bool = False
    """Whether a service sends Celery's task events from its start on. Flower shows them."""

    metrics_port: int = Field(0, ge=0, le=65535)
    """The port of /metrics, /healthz and /readyz; 0 turns them off."""

    metrics_host: str = ""
    """The address that /metrics, /healthz and /readyz listen on; unset: all, IPv6 included. They
    show no secrets.
    """

    review_token: SecretStr | None = None
    """One password of the web pages for all people, who log in with any name. Without a password
    the pages are reachable from this machine only.
    """

    review_passwords: SecretStr | None = None
    """The people who may use the web pages, as NAME:PASSWORD, one a line. Proofs are assigned to
    them.
    """

    review_user_header: str | None = Field(None, pattern=r"^[A-Za-z0-9-]{1,100}\z")
    """The header in which a reverse proxy in front of the web pages sends the person's name, such
    as X-Forwarded-User. The proxy must remove this header from what people send.
    """

    review_proxies: str | None = None
    """The addresses or networks of the proxies whose header is trusted, such as 10.0.0.0/8."""

    s3_endpoint: str | None = Field(None, pattern=r"^https?://[^/@]+/?\z")
    """The address of an S3 server as https://host:port. Without it the store is a local folder."""

    s3_bucket: str = "proofloop"
    """The bucket, which must exist."""

    s3_prefix: str = ""
    """The beginning of all keys in the bucket."""

    s3_region: str = "us-east-1"
    """The region that requests are signed for."""

    s3_access_key: SecretStr | None = None
    """The access key of the S3 server. Without keys, the IAM role that AWS gives this process."""

    s3_secret_key: SecretStr | None = None
    """The secret key of the S3 server."""

    cache: Path = Path.home() / ".cache" / "proofloop"
    """The folder for downloaded model versions: the last 4 that were used of each role of a run."""


def load_settings() -> Settings:
    """Read this process's settings. Raises ConfigError that names the variable."""
    secrets = os.environ.get("PROOFLOOP_SECRETS")
    if secrets and not Path(secrets).is_dir():
        raise ConfigError(
            f"PROOFLOOP_SECRETS={secrets!r} is not a folder",
            "set it to the folder with the secret files",
        )
    try:
        settings = Settings(_secrets_dir=secrets)
    except ValidationError as error:
        problem = first_problem(error)
        name = f"PROOFLOOP_{problem.path[0].upper()}"
        raise ConfigError(
            f"environment variable {name}={_shown(problem.value)!r} is not valid: {problem.text}",
            "correct or unset it",
        ) from error
    _check_client_certificate(settings)
    return settings


def _shown(value: object) -> str:
    """A value without secrets: without the password of an address, and only the first line, because
    it may be a key instead of the key's file name.
    """
    return re.sub(r".*@", "***@", str(value).partition("\n")[0])


def _check_client_certificate(settings: Settings) -> None:
    if (
        settings.broker_cert
        and settings.broker
        and settings.broker.get_secret_value().startswith("amqp://")
    ):
        raise ConfigError(
            "PROOFLOOP_BROKER_CERT is set, but PROOFLOOP_BROKER is an amqp:// address without TLS",
            "use an amqps:// address with the port of the broker's TLS listener",
        )
    if (settings.broker_cert is None) == (settings.broker_key is None):
        return
    names = ["PROOFLOOP_BROKER_CERT", "PROOFLOOP_BROKER_KEY"]
    given, missing = names if settings.broker_cert else reversed(names)
    raise ConfigError(
        f"{given} is set, but {missing} is not", "set both for a client certificate, or neither"
    )
