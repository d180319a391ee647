"""How to reach an OpenAI-compatible server and what to send it. The key is a secret: no message
here repeats it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Literal

import httpx
from pydantic import Field, JsonValue, SecretStr, field_validator

from proofloop.engine.base import GenerationRequest
from proofloop.engine.settings import EngineSettings, MayChange, doubling_wait_s
from proofloop.schema.records import Sampling

MiB = 1024 * 1024
ERROR_TEXT_LENGTH = 300
KEY = "PROOFLOOP_OPENAI_API_KEY"
OWN_FIELDS = frozenset(
    {"model", "messages", "temperature", "top_p", "max_tokens", "max_completion_tokens", "seed"}
    | {"stream", "stream_options", "logprobs", "return_token_ids", "n", "response_format"}
)


def names_a_key(variable: object) -> bool:
    """A run file may come from another person: it may have no other variable sent to a server."""
    return isinstance(variable, str) and re.fullmatch(rf"{KEY}(_[A-Z0-9_]+)?", variable) is not None


class OpenAISettings(EngineSettings):
    """`base_url` is what comes before `/chat/completions`, mostly `http://host:port/v1`."""

    base_url: MayChange[str]
    api_key_env: MayChange[str] = Field(
        KEY, description="the variable that holds the key; empty: no key is sent"
    )
    api_key: MayChange[SecretStr | None] = None
    model: str | None = Field(None, description="one served name for every version")
    models: dict[str, str] = Field(
        {}, description="served name by version; a version not named is sent as it is"
    )
    max_concurrency: MayChange[int] = Field(64, ge=1, le=4096)
    connect_timeout_s: MayChange[float] = Field(10, gt=0, le=300)
    idle_timeout_s: MayChange[float] = Field(
        600, gt=0, le=86400, description="silence that ends a call; queueing counts"
    )
    content_timeout_s: MayChange[float] = Field(
        3600,
        gt=0,
        le=604800,
        description="longest time without a piece of the answer while comments come",
    )
    max_attempts: MayChange[int] = Field(
        5, ge=1, le=20, description="of one call; at a busy or absent server as many again"
    )
    first_wait_s: MayChange[float] = Field(0.5, gt=0, le=60)
    longest_wait_s: MayChange[float] = Field(
        60, gt=0, le=3600, description="a server that asks for more is not waited for"
    )
    longest_busy_s: MayChange[float] = Field(
        600,
        gt=0,
        le=86400,
        description="a call that the server refuses as busy for so long, and no other, is given up",
    )
    want_logprobs: bool = False
    logprobs_are: Literal["raw", "processed"] = Field(
        "raw", description="vLLM's --logprobs-mode; raw: before top_p"
    )
    seed_bits: Literal[31, 32, 63] = 63
    max_tokens_field: MayChange[Literal["max_tokens", "max_completion_tokens"]] = "max_tokens"
    think_end: str = Field("</think>", description="ends thinking left in the text; empty: none is")
    max_answer_bytes: int = Field(64 * MiB, ge=1024, le=1024 * MiB)
    needs_finish_reason: bool = Field(True, description="false: an answer may end without one")
    response_format: dict[str, JsonValue] | None = Field(
        None, description='as OpenAI\'s: { type = "json_object" }'
    )
    send_schema: bool = Field(
        True, description="send the JSON schema of a prompt pack that has one"
    )
    requests_per_minute: MayChange[float | None] = Field(None, gt=0)
    tokens_per_minute: MayChange[float | None] = Field(
        None, gt=0, description="of prompts and answers together"
    )
    extra_body: dict[str, JsonValue] = Field(
        {}, description="sent as it is: top_k, chat_template_kwargs ..."
    )

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        try:
            url = httpx.URL(value)
        except httpx.InvalidURL as error:
            raise ValueError(str(error)) from None
        if url.port is not None and not 0 < url.port < 65536:
            raise ValueError("should have a port between 1 and 65535")
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError("should start with http:// or https:// and name a host")
        if url.userinfo:
            raise ValueError("should hold no user or password; use api_key")
        if url.query or url.path.rstrip("/").endswith("/chat/completions"):
            raise ValueError("should end before /chat/completions and hold no query")
        return value

    @field_validator("api_key_env")
    @classmethod
    def _names_a_key(cls, value: str) -> str:
        if value and not names_a_key(value):
            raise ValueError(f"should be {KEY} or a variable whose name begins with {KEY}_")
        return value

    @field_validator("api_key")
    @classmethod
    def _fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        key = (
            value.get_secret_value().strip() if value else ""
        )  # a key read from a file ends in a newline
        if not key.isascii() or not key.isprintable():
            raise ValueError("should be printable ASCII without line breaks")
        return SecretStr(key) if key else None

    @field_validator("extra_body")
    @classmethod
    def _leaves_our_fields_alone(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if taken := sorted(OWN_FIELDS & value.keys()):
            raise ValueError(
                f"should not set {', '.join(taken)}: the engine or another setting does"
            )
        return value

    @property
    def where(self) -> str:
        """The server, for people: no path, no query."""
        return httpx.URL(self.base_url).netloc.decode()

    @property
    def account(self) -> str:
        """What a server counts requests by: its address and the key."""
        return f"{self.base_url.rstrip('/')} {self.api_key_env}"

    def served_name(self, version: str) -> str:
        """What the server calls a version."""
        return self.model or self.models.get(version, version)

    def body(
        self, request: GenerationRequest, *, without: Collection[str] = ()
    ) -> dict[str, JsonValue]:
        """The request as it is sent, less the fields that the server refused before."""
        fields: dict[str, JsonValue] = {
            "model": self.served_name(request.model),
            "messages": [
                {"role": message.role, "content": message.content} for message in request.messages
            ],
            "temperature": request.sampling.temperature,
            "top_p": request.sampling.top_p,
            self.max_tokens_field: request.sampling.max_tokens,
            "seed": request.seed & ((1 << self.seed_bits) - 1),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.want_logprobs:
            fields |= {"logprobs": True, "return_token_ids": True}
        if (answer_format := self._response_format(request)) is not None:
            fields |= {"response_format": answer_format}
        return {
            name: value for name, value in (fields | self.extra_body).items() if name not in without
        }

    def _response_format(self, request: GenerationRequest) -> dict[str, JsonValue] | None:
        """The setting, else the schema of the request."""
        if self.response_format is not None or request.schema is None or not self.send_schema:
            return self.response_format
        return {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": dict(request.schema)},
        }

    def trusts_logprobs(self, sampling: Sampling) -> bool:
        """Are they those of the sampling distribution? Raw ones only where temperature and top_p
        reshape nothing.
        """
        return self.logprobs_are == "processed" or (
            sampling.temperature == 1 and sampling.top_p == 1
        )

    def backoff_s(self, attempt: int, chance: float) -> float:
        """Doubling waits with jitter: between half of it and all of it, by `chance` [0, 1)."""
        return doubling_wait_s(
            attempt, chance, first_s=self.first_wait_s, longest_s=self.longest_wait_s
        )

    def redact(self, text: str) -> str:
        """The text without the key, in one line, printable, shortened: fit for a log."""
        key = self.api_key.get_secret_value() if self.api_key else ""
        line = " ".join((text.replace(key, "***") if key else text).split())
        line = "".join(character if character.isprintable() else "\ufffd" for character in line)
        return line if len(line) <= ERROR_TEXT_LENGTH else line[:ERROR_TEXT_LENGTH] + " ..."
