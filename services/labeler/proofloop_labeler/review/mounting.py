"""The grading pages with the thread that announces grades: what `proofloop ui` opens and mounts."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import structlog
from starlette.applications import Starlette

from proofloop.bus import Bus
from proofloop.errors import StoreError
from proofloop.store import Store
from proofloop_labeler.review.announcer import Announcer
from proofloop_labeler.review.app import grading_app
from proofloop_labeler.review.cases import Cases, Offer

log = structlog.get_logger()


@contextmanager
def grading_pages(
    store: Store,
    bus: Bus,
    *,
    run: str | None,
    spot_checks: int,
    analyses: int,
    overlap: int,
    people: Iterable[str],
    grace_s: float,
) -> Iterator[Starlette]:
    """The pages to mount, without access control. Announces grades until the block ends.

    The numbers and the `people` are those of an `Offer`.
    """
    offer = Offer(spot_checks, analyses, overlap, tuple(people))
    announcer, cases = Announcer(store, bus), Cases(store, offer)
    runs = [run] if run is not None else list(cases.runs())
    for found in runs:  # grades that an earlier process did not announce
        announcer.announce(found)
    threading.Thread(target=_read_ahead, args=(cases, runs), name="read-ahead", daemon=True).start()
    try:
        yield grading_app(store, cases, announcer.announce, only=run)
    finally:
        announcer.close(grace_s=grace_s)


def _read_ahead(cases: Cases, runs: Iterable[str]) -> None:
    """Read the labels before the first visitor: those of a large run take seconds."""
    try:
        for run in runs:
            cases.tasks(run)
    except StoreError as error:  # a visitor sees the error
        log.warning("read_ahead_failed", reason=str(error))
