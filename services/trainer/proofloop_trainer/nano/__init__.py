"""The nano model: a transformer of half a million weights that proves, verifies and meta-verifies nano chains.

`BASE_FOLDER` holds the shipped base model; `pretrain.train_base` makes another, `evaluate.measure` measures one.
"""

from pathlib import Path

BASE_FOLDER = Path(__file__).parent / "base"


def base_folder() -> Path:
    """Where "nano-base" lies: the entry point of that name calls this."""
    return BASE_FOLDER
