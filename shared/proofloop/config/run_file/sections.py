"""The small sections of a run file: [models], [sampling] and [flow]."""

from __future__ import annotations

from pydantic import Field

from proofloop.config.section import Section
from proofloop.schema.records import Sampling


class Models(Section):
    """The model that each role starts with: a name at the server, a Hugging Face folder, or
    "nano-base". The engines `openai` and `triton` have no default.
    """

    generator: str = Field("nano-base", description="the model that writes proofs")
    verifier: str = Field("nano-base", description="the model that criticizes proofs")
    meta_verifier: str = Field("nano-base", description="the model that judges critiques")


class RoleSampling(Sampling, Section):
    """The sampling of one role."""


class SamplingSection(Section):
    """The sampling of each role."""

    generator: RoleSampling = RoleSampling()
    verifier: RoleSampling = RoleSampling()
    meta_verifier: RoleSampling = RoleSampling()


class Flow(Section):
    """How much work runs at the same time, in a run on one machine. By default enough to keep the
    engines busy. Services take their concurrency from `--concurrency`.
    """

    max_waiting_proofs: int | None = Field(
        None, ge=1, description="the most proofs that are posed and have no label yet"
    )
    generator: int | None = Field(
        None, ge=1, le=4096, description="messages handled at the same time"
    )
    verifier: int | None = Field(
        None, ge=1, le=4096, description="messages handled at the same time"
    )
    meta_verifier: int | None = Field(
        None, ge=1, le=4096, description="messages handled at the same time"
    )
    labeler: int | None = Field(None, ge=1, le=64, description="messages handled at the same time")
