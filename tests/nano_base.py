"""Where the nano base model lies, for tests that need a real model; they are skipped without the trainer's package."""

from __future__ import annotations

from pathlib import Path

import pytest


def nano_base_folder() -> Path:
    nano = pytest.importorskip("proofloop_trainer.nano", reason="proofloop-trainer is not installed")
    folder = Path(nano.__file__).parent / "base"
    if not (folder / "config.json").exists():
        pytest.skip(f"proofloop-trainer has no nano base model in {folder}")
    return folder
