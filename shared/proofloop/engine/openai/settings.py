"""The settings of the engine `openai`, and the request body that follows from them. The key is a
secret: no message here repeats it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from functools import cached_property
from typing import Literal

from pydantic import Field, JsonValue, field_validator

from proofloop.engine.api_keys import HeaderKey, redact
from proofloop.engine.base import GenerationRequest
from proofloop.engine.openai.network.address import LARGEST_PORT, read_address
from proofloop.engine.settings import EngineSettings, MayChange, exponential_backoff_s

MiB = 1024 * 1024
ERROR_TEXT_LENGTH = 300
KEY = "PROOFLOOP_OPENAI_API_KEY"
OWN_FIELDS = frozenset(
    {"model", "messages", "temperature", "top_p", "max_tokens", "max_completion_tokens", "seed"}
    | {"stream", "stream_options", "logprobs", "return_token_ids", "n", "response_format"}
)

WITHOUT_EFFECT: dict[str, tuple[JsonValue, ...]] = {
    "top_k": (None, 0, -1),
    "min_p": (None, 0),
    "repetition_penalty": (None, 1),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "logit_bias": (None, {}),
}
"""Fields that change the sampling distribution, each with the values that leave it unchanged."""


def names_a_key(variable: object) -> bool:
    """Whether a run file may use this variable as a key. A run file from another person must not
    send other variables to a server.
    """
    return isinstance(variable, str) and re.fullmatch(rf"{KEY}(_[A-Z0-9_]+)?", variable) is not None


class OpenAISettings(EngineSettings):
    """A server with OpenAI's streamed chat completions. `endpoints` is a list of tables instead of
    `base_url`: each has a `base_url`, a `weight` and any of these settings.
    """

    base_url: MayChange[str] = Field(
        description="the address before `/chat/completions`, mostly `http://host:port/v1`"
    )
    api_key_env: MayChange[str] = Field(
        KEY,
        description="the environment variable with the key; another name must begin with the"
        " default and `_`. Empty: no key is sent",
    )
    api_key: MayChange[HeaderKey] = None
    model: str | None = Field(None, description="the served name of every version")
    models: dict[str, str] = Field(
        {}, description="served names by version; a version without an entry is sent unchanged"
    )
    load_adapters: bool = Field(
        False,
        description="load versions that are adapters (`[lora]`) into a vLLM server while it runs;"
        " it needs `--enable-lora` and `VLLM_ALLOW_RUNTIME_LORA_UPDATING=True`",
    )
    adapters_kept: MayChange[int] = Field(
        8,
        ge=1,
        description="the most adapters on the server that this process loaded; it unloads the least"
        " recently used idle one first",
    )
    max_concurrency: MayChange[int] = Field(64, ge=1, le=4096, description="calls in flight")
    stream: MayChange[Literal["auto", "never"]] = Field(
        "auto",
        description="`never`: the server sends each answer whole, which costs less CPU on both"
        " sides. Then `content_timeout_s` limits the wait for it, `idle_timeout_s` limits nothing,"
        " and a canceled call leaves no partial answer",
    )
    connect_timeout_s: MayChange[float] = Field(
        10, gt=0, le=300, description="the longest wait for a connection"
    )
    idle_timeout_s: MayChange[float] = Field(
        600,
        gt=0,
        le=86400,
        description="the longest silence, time in the server's queue included; a comment"
        " (`: keep-alive`) ends a silence",
    )
    content_timeout_s: MayChange[float] = Field(
        3600,
        gt=0,
        le=604800,
        description="the longest time without a piece of the answer while comments come; with"
        ' `stream = "never"` the longest wait for an answer, so raise it for long ones',
    )
    max_attempts: MayChange[int] = Field(
        5,
        ge=1,
        le=20,
        description="attempts of a failing call; those at a busy or unavailable server are counted"
        " separately",
    )
    first_wait_s: MayChange[float] = Field(
        0.5, gt=0, le=60, description="the wait after the first attempt; it doubles"
    )
    longest_wait_s: MayChange[float] = Field(
        60,
        gt=0,
        le=3600,
        description="the longest wait between attempts; if the server asks for more, the message is"
        " redelivered later",
    )
    longest_busy_s: MayChange[float] = Field(
        600,
        gt=0,
        le=86400,
        description="a call is recorded as failed after the server has refused it as busy for this"
        " long while no other call was in flight",
    )
    want_logprobs: bool = Field(
        False, description="request tokens and log-probabilities, and store them"
    )
    logprobs_are: Literal["raw", "processed"] = Field(
        "raw",
        description="before (`raw`) or after temperature, top_p and the like, as vLLM's"
        " --logprobs-mode says; raw ones are used only if temperature and top_p are 1 and"
        " `extra_body` cuts no tokens",
    )
    seed_bits: Literal[31, 32, 63] = Field(
        63, description="the size of seeds; lower it for a server that refuses large ones"
    )
    omit_fields: frozenset[Literal["temperature", "top_p", "seed"]] = Field(
        frozenset(), description="fields that the server refuses: they are not sent"
    )
    max_tokens_field: MayChange[Literal["max_tokens", "max_completion_tokens"]] = Field(
        "max_tokens", description="the name that the server expects"
    )
    think_end: str = Field(
        "</think>", description="the end of reasoning in the text; empty: the text has none"
    )
    max_answer_bytes: int = Field(
        64 * MiB, ge=1024, le=1024 * MiB, description="the longest accepted answer"
    )
    needs_finish_reason: bool = Field(
        True,
        description="an answer without a finish reason counts as cut off; false: `[DONE]` ends it",
    )
    response_format: dict[str, JsonValue] | None = Field(
        None, description='sent unchanged in place of a pack\'s schema: `{ type = "json_object" }`'
    )
    send_schema: bool = Field(
        True, description="send the JSON schema of a prompt pack that has one"
    )
    requests_per_minute: MayChange[float | None] = Field(
        None, gt=0, description="a limit for this process; services do not share it"
    )
    tokens_per_minute: MayChange[float | None] = Field(
        None, gt=0, description="the same for the tokens of prompts and answers together"
    )
    extra_body: dict[str, JsonValue] = Field(
        {}, description="more fields, sent unchanged: `top_k`, `chat_template_kwargs` ..."
    )

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        address = read_address(value)
        if not address.has_possible_port:
            raise ValueError(f"must have a port between 1 and {LARGEST_PORT}")
        if address.scheme not in ("http", "https") or not address.host:
            raise ValueError("must start with http:// or https:// and name a host")
        if address.user is not None:
            raise ValueError("must not contain a user or password; use api_key_env")
        if address.query or address.path.rstrip("/").endswith("/chat/completions"):
            raise ValueError("must end before /chat/completions, without a query")
        return value

    @field_validator("api_key_env")
    @classmethod
    def _names_a_key(cls, value: str) -> str:
        if value and not names_a_key(value):
            raise ValueError(f"must be {KEY} or a variable whose name begins with {KEY}_")
        return value

    @field_validator("extra_body")
    @classmethod
    def _leaves_our_fields_alone(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if taken := sorted(OWN_FIELDS & value.keys()):
            raise ValueError(
                f"must not set {', '.join(taken)}: the engine or another setting sets it"
            )
        return value

    @cached_property
    def where(self) -> str:
        """The server's host and port, for messages."""
        return read_address(self.base_url).host_and_port

    @property
    def streams(self) -> bool:
        return self.stream == "auto"

    @property
    def silence_s(self) -> float:
        """The seconds for which a server may send nothing; infinite while it makes a whole
        answer.
        """
        return self.idle_timeout_s if self.streams else math.inf

    @property
    def account(self) -> str:
        """The account that rate limits apply to: the server's address and the key's variable."""
        return f"{self.base_url.rstrip('/')} {self.api_key_env}"

    def served_name(self, version: str) -> str:
        """The server's name for a version."""
        return self.model or self.models.get(version, version)

    def body(
        self, request: GenerationRequest, model: str, *, without: Collection[str] = ()
    ) -> dict[str, JsonValue]:
        """The body of the request to the model that the server knows by this name, without the
        fields that it refused before.
        """
        fields: dict[str, JsonValue] = {
            "model": model,
            "messages": [
                {"role": message.role, "content": message.content} for message in request.messages
            ],
            "temperature": request.sampling.temperature,
            "top_p": request.sampling.top_p,
            self.max_tokens_field: request.sampling.max_tokens,
            "seed": request.seed & ((1 << self.seed_bits) - 1),
            "stream": self.streams,
        }
        if self.streams:
            fields |= {"stream_options": {"include_usage": True}}
        if self.want_logprobs:
            fields |= {"logprobs": True, "return_token_ids": True}
        if (answer_format := self._response_format(request)) is not None:
            fields |= {"response_format": answer_format}
        omitted = {*without, *self.omit_fields}
        return {
            name: value for name, value in (fields | self.extra_body).items() if name not in omitted
        }

    def _response_format(self, request: GenerationRequest) -> dict[str, JsonValue] | None:
        """The setting, or the schema of the request."""
        if self.response_format is not None or request.schema is None or not self.send_schema:
            return self.response_format
        return {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": dict(request.schema)},
        }

    def trusts_logprobs(self, request: GenerationRequest) -> bool:
        """Whether the log-probabilities are those of the model's sampling distribution: raw ones
        only at temperature 1 and top_p 1, if both are sent and no field of `extra_body` changes it.
        With a schema the server samples from the tokens that it allows.
        """
        if self._response_format(request) is not None:
            return False
        sampling = request.sampling
        return self.logprobs_are == "processed" or (
            sampling.temperature == 1
            and sampling.top_p == 1
            and self.omit_fields.isdisjoint({"temperature", "top_p"})
            and all(self.extra_body.get(name) in same for name, same in WITHOUT_EFFECT.items())
        )

    def backoff_s(self, attempt: int, chance: float) -> float:
        """Exponential backoff with jitter: `chance` in [0, 1) moves it between half and all."""
        return exponential_backoff_s(
            attempt, chance, first_s=self.first_wait_s, longest_s=self.longest_wait_s
        )

    def redact(self, text: str) -> str:
        """The text without the key, for logs and errors."""
        return redact(text, self.api_key, ERROR_TEXT_LENGTH)
