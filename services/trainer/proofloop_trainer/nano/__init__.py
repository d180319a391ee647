"""The nano model: a transformer with half a million weights that proves, verifies and meta-verifies
nano problems.

`BASE_FOLDER` holds the shipped base model. `pretrain.train_base` trains a new one;
`evaluate.measure` measures one.
"""

from pathlib import Path

BASE_FOLDER = Path(__file__).parent / "base"


def base_folder() -> Path:
    """The folder of the shipped base model, for the entry point "nano-base"."""
    return BASE_FOLDER
