from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.trainer.grpo_examples import save_tiny_model


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that learners begin from. Tests only read it."""
    return save_tiny_model(tmp_path_factory.mktemp("policy"))
