"""The settings of the engine `triton`. The key is a secret: no message here repeats it."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, JsonValue, field_validator

from proofloop.engine.api_keys import HeaderKey, redact
from proofloop.engine.settings import EngineSettings, MayChange, exponential_backoff_s
from proofloop.engine.triton.contract import MODEL_FILE, triton_name

MiB = 1024 * 1024
ERROR_TEXT_LENGTH = 500


class TritonSettings(EngineSettings):
    """Models on Triton servers: ours (`serving/`), or TensorRT-LLM's `llmapi`."""

    endpoints: MayChange[list[str]] = Field(
        min_length=1,
        description="gRPC addresses `host:port`; a host with several addresses counts as several"
        " replicas",
    )
    model: str | None = Field(
        None, description="one Triton model for every version; the engine never loads it"
    )
    models: dict[str, str] = Field(
        {}, description="Triton models by version; the name of the others is derived"
    )
    load_models: bool = Field(
        True, description="load a version that is not ready; false: the deployment loads the models"
    )
    keep_versions: MayChange[int] = Field(
        4,
        ge=1,
        le=100,
        description="the most loaded versions of one run, all roles together; one more while a"
        " version is loaded. Those of earlier runs are unloaded after five minutes without a call",
    )
    server_settings: str = Field(
        "", description="the file on the server with its engine's settings"
    )
    model_file: str = Field(MODEL_FILE, description="the Python source of loaded models")
    load_timeout_s: MayChange[float] = Field(
        3600, gt=0, le=86400, description="the longest time for loading a version"
    )
    admin_header: MayChange[str] = Field(
        "triton-grpc-protocol-admin-key",
        pattern=r"^[a-z0-9-]+\z",
        description="the gRPC header with PROOFLOOP_TRITON_KEY",
    )
    admin_key: MayChange[HeaderKey] = Field(
        None, description="for a server with --grpc-restricted-protocol"
    )
    tls: MayChange[bool] = Field(False, description="encrypt the connection")
    ca_file: MayChange[Path | None] = Field(
        None, description="your own certificate authority; turns TLS on"
    )
    load_factor: MayChange[float] = Field(
        1.25,
        ge=1,
        le=100,
        description="a proof's calls stay on one replica until it has this times the mean load",
    )
    max_concurrency: MayChange[int] = Field(512, ge=1, le=16384, description="calls in flight")
    idle_timeout_s: MayChange[float] = Field(
        600,
        gt=0,
        le=86400,
        description="the longest silence, time in the server's queue included",
    )
    max_attempts: MayChange[int] = Field(
        5, ge=1, le=20, description="attempts of a call that has no part of an answer yet"
    )
    first_wait_s: MayChange[float] = Field(
        0.2, gt=0, le=60, description="the wait after the first attempt; it doubles"
    )
    longest_wait_s: MayChange[float] = Field(
        15, gt=0, le=3600, description="the longest wait between attempts"
    )
    resolve_every_s: MayChange[float] = Field(
        30, gt=0, le=3600, description="the time between two look-ups of the hosts"
    )
    want_tokens: bool = Field(True, description="request token ids and log-probabilities")
    chat_template: Path | None = Field(
        None, description="a Jinja file, for a model without the input `messages`"
    )
    chat_template_values: dict[str, JsonValue] = Field(
        {}, description="the template's inputs besides the messages: `bos_token` ..."
    )
    think_end: str = Field(
        "</think>", description="the end of reasoning in the text; empty: the text has none"
    )
    max_answer_bytes: int = Field(
        64 * MiB, ge=1024, le=1024 * MiB, description="the longest accepted answer"
    )

    @field_validator("endpoints")
    @classmethod
    def _are_addresses(cls, values: list[str]) -> list[str]:
        for value in values:
            host, _, port = value.rpartition(":")
            if not host or "/" in value or "@" in value or not port.isdecimal():
                raise ValueError(
                    f"{value!r} must be host:port of the gRPC service, 8001 by default"
                )
        return values

    @property
    def uses_tls(self) -> bool:
        return self.tls or self.ca_file is not None

    def name_of(self, version: str) -> str:
        """The Triton model that serves a version."""
        return self.model or self.models.get(version) or triton_name(version)

    def may_load(self, version: str) -> bool:
        return self.load_models and not self.model and version not in self.models

    def admin_metadata(self) -> tuple[tuple[str, str], ...]:
        """The gRPC metadata of a request that loads or unloads."""
        return ((self.admin_header, self.admin_key.get_secret_value()),) if self.admin_key else ()

    def backoff_s(self, attempt: int, chance: float) -> float:
        """Exponential backoff with jitter: `chance` in [0, 1) moves it between half and all."""
        return exponential_backoff_s(
            attempt, chance, first_s=self.first_wait_s, longest_s=self.longest_wait_s
        )

    def redact(self, text: str) -> str:
        """The text without the key, for logs and errors."""
        return redact(text, self.admin_key, ERROR_TEXT_LENGTH)
