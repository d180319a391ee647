"""Opens the engine `openai`: one server under `base_url`, or several under `endpoints` with
weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from proofloop.engine.api_keys import read_api_key
from proofloop.engine.base import Engine
from proofloop.engine.endpoints import Endpoint, EndpointsEngine
from proofloop.engine.info import ResolveModel
from proofloop.engine.openai.engine import OpenAIEngine
from proofloop.engine.openai.settings import KEY, OpenAISettings, names_a_key
from proofloop.engine.settings import read_settings
from proofloop.errors import ConfigError

HEAVIEST = 1e6
FORM = (
    'write endpoints = [{ base_url = "http://a:8000/v1", weight = 2 }, { base_url ='
    ' "http://b:8000/v1" }]'
)


def open_openai(settings: Mapping[str, object], resolve: ResolveModel = Path) -> Engine:
    """Open the engine. Raises ConfigError for invalid settings."""
    if "endpoints" not in settings:
        return OpenAIEngine(_read(settings, "openai"), resolve)
    found = read_endpoints(settings)
    return EndpointsEngine(
        tuple(Endpoint(_name(each), OpenAIEngine(each, resolve), weight) for each, weight in found)
    )


def read_endpoints(settings: Mapping[str, object]) -> list[tuple[OpenAISettings, float]]:
    """The settings of each endpoint with its weight. Its own settings override the common ones."""
    if "base_url" in settings:
        raise ConfigError("[engine] openai: both base_url and endpoints are set", "remove one")
    tables = settings["endpoints"]
    if (
        not isinstance(tables, list)
        or not tables
        or not all(isinstance(table, Mapping) for table in tables)
    ):
        raise ConfigError("[engine] openai: endpoints must be a list of tables", FORM)
    common = {name: value for name, value in settings.items() if name != "endpoints"}
    found = [
        _endpoint(common, table, f"openai: endpoints[{place}]")
        for place, table in enumerate(tables)
    ]
    names = [_name(each) for each, _ in found]
    if twice := next((place for place, name in enumerate(names) if name in names[:place]), None):
        problem = (
            f"[engine] openai: endpoints[{twice}] and endpoints[{names.index(names[twice])}] are"
            " the same"
        )
        raise ConfigError(problem, "remove one of them, and raise the weight of the other")
    return found


def _endpoint(
    common: Mapping[str, object], table: Mapping[str, object], place: str
) -> tuple[OpenAISettings, float]:
    weight = table.get("weight", 1)
    if (
        isinstance(weight, bool)
        or not isinstance(weight, int | float)
        or not 0 < weight <= HEAVIEST
    ):
        raise ConfigError(
            f"[engine] {place}: weight = {weight!r}: must be above 0 and at most {HEAVIEST:g}",
            "an endpoint of weight 2 gets twice the calls of one of weight 1",
        )
    own = {name: value for name, value in table.items() if name != "weight"}
    return _read({**common, **own}, place), float(weight)


def _read(settings: Mapping[str, object], place: str) -> OpenAISettings:
    variable = settings.get("api_key_env", KEY)
    key = read_api_key(str(variable)) if names_a_key(variable) else None
    secret = {} if key is None else {"api_key": key}
    return read_settings(OpenAISettings, {**settings, **secret}, place, also=("endpoints",))


def _name(settings: OpenAISettings) -> str:
    """The endpoint's name: its address and models. Two models of one server are two endpoints."""
    models = "".join(f" {name}" for name in (settings.model, *settings.models.values()) if name)
    return f"{settings.base_url}{models}"
