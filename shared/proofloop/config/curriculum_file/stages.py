"""The stages of a curriculum and their order.

After a cold start, each iteration (section 3.1 of the paper) trains the verifier, the
meta-verifier, the enhanced verifier, and the generator from the verifier's checkpoint. Then it
labels the generator's new proofs and consolidates all roles into one model, with which the next
iteration starts.
"""

from __future__ import annotations

from typing import Literal

from proofloop.config.section import Section
from proofloop.schema.records import ModelRole

StageKind = Literal[
    "cold_start",
    "verifier",
    "meta_verifier",
    "enhanced",
    "generator",
    "label",
    "consolidate",
    "measure",
]
Ablation = Literal["no-meta", "no-self"]
ITERATION: tuple[StageKind, ...] = (
    "verifier",
    "meta_verifier",
    "enhanced",
    "generator",
    "label",
    "consolidate",
)
LATER_ITERATION: tuple[StageKind, ...] = ("enhanced", "generator", "label", "consolidate")
"""Later iterations start with the enhanced verifier, because the consolidated model already
verifies and meta-verifies.
"""

ABLATED: dict[Ablation, StageKind] = {"no-meta": "enhanced", "no-self": "generator"}

SAMPLED: dict[StageKind, ModelRole] = {
    "verifier": "verifier",
    "meta_verifier": "meta_verifier",
    "enhanced": "verifier",
    "generator": "generator",
}
"""The GRPO stages, each with the role that it samples."""


class Stage(Section):
    """One stage. The version of an ablation is measured, but never serves."""

    name: str
    kind: StageKind
    iteration: int
    ablation: Ablation | None = None
