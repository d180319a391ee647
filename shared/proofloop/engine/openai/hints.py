"""Hints: what the user can do when an OpenAI-compatible server refuses a call."""

from __future__ import annotations

import re
from collections.abc import Collection
from http import HTTPStatus

from proofloop.engine.openai.failure import Refusal
from proofloop.engine.openai.network.address import read_address
from proofloop.engine.openai.settings import OpenAISettings

MODELS_SHOWN = 20
WEB_PAGE = "the answer is a web page, perhaps a sign-in page or a proxy before the model server"
BALANCE = "the account's balance is too low: top it up, then run again with --resume"
QUOTA = (
    "the account's quota is used up: check its plan and billing, then run again; stored answers are"
    " kept"
)
BUSY = "the server is busy or still loading: wait, or raise max_attempts under [engine.settings]"
LENGTH = re.compile(
    r"context[ _-]?(length|size|window)|prompt is too long"
    r"|max_(new_|completion_)?tokens\b(?!.*\b(not supported|unsupported)).*\d"
)
"""What servers write about a prompt or `max_tokens` above their limit."""
OPTIONAL = ("temperature", "top_p", "seed")
"""Fields that `omit_fields` leaves out."""
NO_FINISH_REASON = (
    "set needs_finish_reason = false under [engine.settings] if this server never sends a finish"
    " reason"
)


def about_refusal(
    refusal: Refusal, settings: OpenAISettings, location: str, max_tokens: int
) -> str:
    """The hint for a status that is not 200; empty if there is no hint."""
    if refusal.kind == "access":
        return _about_access(refusal.status, settings)
    if refusal.kind == "balance":
        return BALANCE
    if location and 300 <= refusal.status < 400:
        target = location.removesuffix("/chat/completions")
        return (
            f"the server redirects: set base_url = {target!r} if the API is there, or sign in where"
            " it asks for that"
        )
    if refusal.kind == "address":
        return about_address(settings, is_web_page=refusal.text.lstrip().startswith("<"))
    if refusal.kind in ("busy", "quota"):
        return _about_load(refusal, settings)
    return _about_length(refusal, max_tokens) or _about_fields(refusal, settings)


def about_address(settings: OpenAISettings, *, is_web_page: bool) -> str:
    """The hint for an address that does not answer like an API."""
    causes = [WEB_PAGE] if is_web_page else []
    return "; ".join([*causes, without_v1(settings) or _whose(settings)])


def _whose(settings: OpenAISettings) -> str:
    return f"is base_url = {settings.base_url!r} the API's address?"


def without_v1(settings: OpenAISettings) -> str:
    """The hint to add /v1; empty if the path of base_url has a version."""
    if "/v" in read_address(settings.base_url).path:
        return ""
    return f"base_url has no /v1: try base_url = {settings.base_url.rstrip('/') + '/v1'!r}"


def about_adapter(refusal: Refusal, settings: OpenAISettings) -> str:
    """The hint for an adapter that the server did not load."""
    message = refusal.message()
    if refusal.kind == "access":
        return _about_access(refusal.status, settings)
    if "No adapter found" in message:
        return "the server must see the folder under the same path: mount the store there"
    if "max_lora_rank" in message:
        return "start vLLM with a larger --max-lora-rank, or lower [lora] rank"
    return (
        "load_adapters needs vLLM with --enable-lora and the environment variable"
        " VLLM_ALLOW_RUNTIME_LORA_UPDATING=True; its log has more"
    )


def about_model(name: str, served: Collection[str], settings: OpenAISettings) -> str:
    """The hint for an unknown model: the server's models, or the address if it lists none."""
    if not served:
        return without_v1(settings) or f"GET /models lists no models: {_whose(settings)}"
    if name in served:
        return ""
    shown = [settings.redact(each) for each in sorted(served)[:MODELS_SHOWN]]
    more = f" and {len(served) - len(shown)} more" if len(served) > len(shown) else ""
    return (
        f"the run asks for {name!r}, the server has: {', '.join(shown)}{more}; correct [models],"
        " or set model under [engine.settings]"
    )


def _about_access(status: int, settings: OpenAISettings) -> str:
    variable = settings.api_key_env
    if not variable:
        return "the server requires a key: set api_key_env under [engine.settings] to its variable"
    if settings.api_key is None:
        return f"set {variable} to a key of this server"
    if status == HTTPStatus.UNAUTHORIZED:
        return f"the server does not accept the key in {variable}: correct it"
    return f"the key in {variable} lacks a permission: use another key, or check the account"


def _about_load(refusal: Refusal, settings: OpenAISettings) -> str:
    """The hint for a busy server. Some report an empty account as a rate limit."""
    if refusal.kind == "quota" or re.search("quota|billing|credit", refusal.message().lower()):
        return QUOTA
    if (refusal.wait_s() or 0.0) > settings.longest_wait_s:
        return "run again after that time, or raise longest_wait_s under [engine.settings]"
    return BUSY


def _about_length(refusal: Refusal, max_tokens: int) -> str:
    """The hint for a prompt or `max_tokens` above the server's limit."""
    if not LENGTH.search(refusal.message().lower()):
        return ""
    return (
        f"the prompt and max_tokens = {max_tokens} together exceed the server's limit: lower"
        " max_tokens under [sampling.ROLE], or serve the model with a longer context"
    )


def _about_fields(refusal: Refusal, settings: OpenAISettings) -> str:
    """The hint for a refused field that a setting changes."""
    if refused := next(filter(refusal.names, OPTIONAL), ""):
        return _about_optional(refused, settings)
    if refusal.names("max_completion_tokens") and settings.max_tokens_field == "max_tokens":
        return 'set max_tokens_field = "max_completion_tokens" under [engine.settings]'
    if refusal.names("response_format") or refusal.names("json_schema"):
        return _about_response_format(settings)
    return ""


def _about_optional(field: str, settings: OpenAISettings) -> str:
    """The hint for a field that a server refuses for its value, or does not know."""
    omit = f'set omit_fields = ["{field}"] under [engine.settings] if this server takes no {field}'
    if field != "seed":
        return f"change {field} under [sampling.ROLE]; or {omit}"
    if settings.seed_bits == 31:
        return omit
    return (
        f"set seed_bits = 31 under [engine.settings] if this server refuses large seeds; or {omit}"
    )


def _about_response_format(settings: OpenAISettings) -> str:
    if settings.response_format:
        return "change response_format under [engine.settings], or remove it"
    return (
        "this server takes no JSON schema: set send_schema = false under [engine.settings], or"
        ' response_format = { type = "json_object" }'
    )
