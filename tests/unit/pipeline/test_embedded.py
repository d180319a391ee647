"""The pipeline in one process holds nothing once it has ended, however it ended."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from proofloop.errors import StoreError
from proofloop.pipeline.embedded import EmbeddedPipeline
from proofloop.runs.create import create_run
from proofloop.store import LocalStore
from proofloop.worker.engine_pool import Engines
from tests.builders import RUN, runspec


class Away(LocalStore):
    """A store that lists nothing: the pipeline reads its time of earlier runs first."""

    def list(self, prefix: str) -> Iterator[str]:
        raise StoreError("the store is away")


def test_a_pipeline_that_cannot_start_keeps_no_lock_and_no_thread(tmp_path: Path) -> None:
    store = Away(tmp_path)
    create_run(LocalStore(tmp_path), runspec(), resume=False)
    before = set(threading.enumerate())
    with pytest.raises(StoreError, match="away"):
        EmbeddedPipeline(store, Engines(store, tmp_path), runspec()).__enter__()
    with store.only_here(RUN):
        assert set(threading.enumerate()) <= before
