"""The engine `triton`: models on Triton servers, over gRPC."""

from __future__ import annotations

from collections.abc import Mapping

from proofloop.engine.api_keys import read_api_key
from proofloop.engine.base import Engine
from proofloop.engine.info import EngineInfo, ResolveModel
from proofloop.engine.settings import read_settings
from proofloop.engine.triton.settings import TritonSettings

KEY = "PROOFLOOP_TRITON_KEY"
"""The variable with the key of a server that restricts loading and unloading."""


def _open(settings: Mapping[str, object], _: ResolveModel) -> Engine:
    from proofloop.engine.triton.engine import TritonEngine

    if (key := read_api_key(KEY)) is not None:
        settings = {**settings, "admin_key": key}
    return TritonEngine(read_settings(TritonSettings, settings, "triton"))


ENGINE = EngineInfo(
    open=_open,
    settings=TritonSettings,
    on_server=True,
    requires=("tritonclient",),
    part="[cluster]",
)
