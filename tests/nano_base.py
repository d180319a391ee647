"""Where the nano base model lies, for tests that need a real model; they are skipped without the
trainer's package.
"""

from __future__ import annotations

from pathlib import Path

import pytest


def nano_base_folder() -> Path:
    pytest.importorskip("proofloop_trainer", reason="proofloop-trainer is not installed")
    from proofloop_trainer.nano import base_folder

    return base_folder()
