"""SmolLM2-135M-Instruct (Apache-2.0), a real language model, as a folder in Hugging Face format;
made once a machine by `examples/smollm2/make_model.py`.

The folder lies in the user's cache: XDG_CACHE_HOME, else ~/.cache.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

MAKE = Path(__file__).parents[1] / "examples" / "smollm2" / "make_model.py"
CACHED_AS = "smollm2-135m-instruct-1"
"""Raise the number when the folder is made differently."""


def smollm2_folder() -> Path:
    """The folder of the model: Llama, 134.5 million weights in 32 bits, with tokenizer and chat
    template; 540 MB.
    """
    folder = _cache() / CACHED_AS
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test processes want it at once
        if not folder.exists():
            _make(folder)
    return folder


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "proofloop-tests")


def _make(folder: Path) -> None:
    """Run in a separate process: torch keeps the memory that it once allocated."""
    command = [sys.executable, str(MAKE), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no real model: {done.stderr[-500:]}")
