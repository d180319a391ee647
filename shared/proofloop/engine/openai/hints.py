"""The way out of what an OpenAI-compatible server refuses, for people."""

from __future__ import annotations

from collections.abc import Collection

import httpx

from proofloop.engine.openai.failure import Refusal
from proofloop.engine.openai.settings import OpenAISettings

MODELS_SHOWN = 20
WEB_PAGE = "a web page came: a sign-in page or a proxy may answer in place of the model server"
BALANCE = "the account's balance does not suffice: top it up, then continue with --resume"
NO_FINISH_REASON = (
    "set needs_finish_reason = false under [engine.settings] if this server never sends one"
)


def about_refusal(refusal: Refusal, settings: OpenAISettings, location: str) -> str:
    """What to do about a status that is not 200; empty where nothing is known."""
    if refusal.kind == "access":
        return _about_access(refusal.status, settings)
    if refusal.kind == "balance":
        return BALANCE
    if location and 300 <= refusal.status < 400:
        target = location.removesuffix("/chat/completions")
        return (
            f"it redirects: set base_url = {target!r} if that is the API, or see to the sign-in"
            " that it may ask for"
        )
    if refusal.kind == "address":
        return about_address(settings, is_web_page=refusal.text.lstrip().startswith("<"))
    if refusal.kind == "busy":
        return (
            "the server is busy or still loading: wait for it, or raise max_attempts under"
            " [engine.settings]"
        )
    return _about_fields(refusal, settings)


def about_address(settings: OpenAISettings, *, is_web_page: bool) -> str:
    """What else may be found at an address that is no API's."""
    causes = [WEB_PAGE] if is_web_page else []
    return "; ".join([*causes, without_v1(settings) or _whose(settings)])


def _whose(settings: OpenAISettings) -> str:
    return f"is base_url = {settings.base_url!r} the API's address?"


def without_v1(settings: OpenAISettings) -> str:
    """Empty where base_url has a version in its path."""
    if "/v" in httpx.URL(settings.base_url).path:
        return ""
    return f"base_url has no /v1: try base_url = {settings.base_url.rstrip('/') + '/v1'!r}"


def about_model(name: str, served: Collection[str], settings: OpenAISettings) -> str:
    """The models that the server has; where it does not say, whether the address may be the
    reason.
    """
    if not served:
        return without_v1(settings) or f"GET /models lists no models there: {_whose(settings)}"
    if name in served:
        return ""
    shown = [settings.redact(each) for each in sorted(served)[:MODELS_SHOWN]]
    more = f" and {len(served) - len(shown)} more" if len(served) > len(shown) else ""
    return (
        f"{name!r} was asked for, the server has: {', '.join(shown)}{more}; correct [models], "
        "or set model under [engine.settings]"
    )


def _about_access(status: int, settings: OpenAISettings) -> str:
    variable = settings.api_key_env
    if not variable:
        return "the server wants a key: name its variable by api_key_env under [engine.settings]"
    if settings.api_key is None:
        return f"set {variable} to a key of this server"
    if status == httpx.codes.UNAUTHORIZED:
        return f"the server does not accept the key in {variable}: correct it"
    return f"the key in {variable} may not do this: use another, or check the account's rights"


def _about_fields(refusal: Refusal, settings: OpenAISettings) -> str:
    """Fields that some servers refuse and a setting changes."""
    if refusal.names("seed") and settings.seed_bits > 31:
        return "set seed_bits = 31 under [engine.settings]: this server refuses large seeds"
    if refusal.names("max_completion_tokens") and settings.max_tokens_field == "max_tokens":
        return 'set max_tokens_field = "max_completion_tokens" under [engine.settings]'
    if refusal.names("response_format") or refusal.names("json_schema"):
        return _about_response_format(settings)
    return ""


def _about_response_format(settings: OpenAISettings) -> str:
    if settings.response_format:
        return "change response_format under [engine.settings], or leave it out"
    return (
        "set send_schema = false under [engine.settings], or response_format = { type ="
        ' "json_object" }:'
        " this server takes no JSON schema"
    )
