"""The engine `openai`: models on servers with OpenAI's API for chat completions."""

from __future__ import annotations

from collections.abc import Mapping

from proofloop.engine.base import Engine
from proofloop.engine.info import EngineInfo, ResolveModel
from proofloop.engine.openai.settings import OpenAISettings


def _open(settings: Mapping[str, object], resolve: ResolveModel) -> Engine:
    from proofloop.engine.openai.endpoints import open_openai

    return open_openai(settings, resolve)


ENGINE = EngineInfo(
    open=_open,
    settings=OpenAISettings,
    on_server=True,
    serves_new_versions=False,
    loads_adapters="load_adapters",
)
