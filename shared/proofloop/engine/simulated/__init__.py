"""The engine `simulated`: invents its answers, without a model."""

from __future__ import annotations

from collections.abc import Mapping

from proofloop.engine.base import Engine
from proofloop.engine.info import EngineInfo, ResolveModel
from proofloop.engine.settings import read_settings
from proofloop.engine.simulated.answers import SimulatedSettings


def _open(settings: Mapping[str, object], _: ResolveModel) -> Engine:
    from proofloop.engine.simulated.engine import SimulatedEngine

    return SimulatedEngine(read_settings(SimulatedSettings, settings, "simulated"))


ENGINE = EngineInfo(
    open=_open, settings=SimulatedSettings, needs_model_names=False, is_simulated=True
)
