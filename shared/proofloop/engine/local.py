"""The engine `local`: Hugging Face models in this process. The package `proofloop-serving` runs it.

The description is here, without torch: every machine can check a run file that names `local`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import cast

from pydantic import Field

from proofloop.engine.base import Engine
from proofloop.engine.info import EngineInfo, ResolveModel
from proofloop.engine.settings import EngineSettings, MayChange


class DecoderSettings(EngineSettings):
    """Settings of proofloop's decoder, for small models on a CPU or one GPU."""

    max_batch: MayChange[int] = Field(
        256, ge=1, description="the most calls of a model in one batch"
    )
    threads: MayChange[int] = Field(1, ge=1, description="CPU threads of torch")
    tokens_per_pass: MayChange[int] = Field(
        16_384,
        ge=1,
        description="the most padded prompt tokens in a forward pass; a longer prompt gets a pass"
        " of its own",
    )
    prompt_tokens_kept: MayChange[int] = Field(
        32_768, ge=0, description="the prompt cache's size in tokens, over all models"
    )


class LocalSettings(DecoderSettings):
    """Settings of the engine `local`, which may serve several models in this process."""

    models_kept: MayChange[int] = Field(
        4,
        ge=1,
        description="the most loaded versions; the engine unloads the least recently used idle one"
        " first. Adapters share their base model, which stays as long as one of them",
    )


def _open(settings: Mapping[str, object], resolve_model: ResolveModel) -> Engine:
    # by name: the core does not depend on the package
    serving = import_module("proofloop_serving.engine")
    return cast(Engine, serving.open_engine(settings, resolve_model))


ENGINE = EngineInfo(
    open=_open,
    settings=LocalSettings,
    needs_model_names=False,
    loads_folders=True,
    requires=("proofloop_serving", "torch"),
    part="serving",
)
