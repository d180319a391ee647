"""The curriculum file of `proofloop iterate`: its sections, and the stages that follow from it."""

from proofloop.config.curriculum_file.loading import CURRICULUM_FILE, load_curriculum
from proofloop.config.curriculum_file.sections import Files, Watch
from proofloop.config.curriculum_file.spec import CurriculumSpec, changeable, grpo_fields
from proofloop.config.curriculum_file.stages import SAMPLED, Stage, StageKind
from proofloop.config.curriculum_file.training_sections import (
    ColdStart,
    EnhancedStage,
    GrpoStage,
    VerifierStage,
)

__all__ = [
    "CURRICULUM_FILE",
    "SAMPLED",
    "ColdStart",
    "CurriculumSpec",
    "EnhancedStage",
    "Files",
    "GrpoStage",
    "Stage",
    "StageKind",
    "VerifierStage",
    "Watch",
    "changeable",
    "grpo_fields",
    "load_curriculum",
]
