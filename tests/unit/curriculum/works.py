"""The surroundings of a stage without an engine."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from proofloop.config.curriculum_file import CurriculumSpec
from proofloop.config.run_file import RunSpec
from proofloop.curriculum.sources import open_sources
from proofloop.curriculum.work import Work
from proofloop.method.prompts import load_pack
from proofloop.pipeline.driver import Report
from proofloop.runs.progress import RunProgress
from proofloop.store import LocalStore
from proofloop.store.lease import Lease


def work_on(folder: Path = Path(), **sections: Any) -> Work:
    """The curriculum `c` in a store in this folder. Its runs end at once."""
    spec = CurriculumSpec.model_validate({"name": "c", **sections})
    return Work(
        spec,
        LocalStore(folder),
        open_sources(spec),
        load_pack("nano"),
        undriven,
        Lease(),
        threading.Event(),
        print,
    )


def undriven(spec: RunSpec, report: Report) -> RunProgress:
    """A run that ends without an answer."""
    return RunProgress(planned=0)
