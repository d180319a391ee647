"""A model to serve, made of a checkpoint to go on from: the same files without the optimizer's state."""

from __future__ import annotations

import shutil
from pathlib import Path

from proofloop_trainer.checkpoint import MANIFEST, OPTIMIZER, Manifest, read_manifest


def export_model(checkpoint: Path, folder: Path) -> Manifest:
    """Copy what a server needs to a new folder, manifest last."""
    manifest = read_manifest(checkpoint)
    served = manifest.model_copy(update={"files": tuple(entry for entry in manifest.files if entry.name != OPTIMIZER)})
    folder.mkdir(parents=True)
    for entry in served.files:
        shutil.copyfile(checkpoint / entry.name, folder / entry.name)
    (folder / MANIFEST).write_text(served.model_dump_json(indent=2) + "\n", "utf-8")
    return served
