"""A small Celery app for tests that start a real worker of it: `celery -A
tests.integration.celery_app worker`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from celery import Celery, signals
from kombu import Queue

from proofloop.bus.tracing import Span, no_span, tracing
from proofloop.worker.sentry import start_sentry
from tests.integration.processes import end

ROOT = Path(__file__).parents[2]
SPAN: Span = no_span


def make_app(url: str, queue: str) -> Celery:
    app = Celery("tests", broker=url, set_as_current=False)
    app.conf.update(
        task_queues=[Queue(queue, auto_delete=True)],
        task_default_queue=queue,
        task_ignore_result=True,
    )
    return app


start_sentry()
app = make_app(os.environ.get("TEST_BROKER", "memory://"), os.environ.get("TEST_QUEUE", "tests"))
opened = ExitStack()


@signals.worker_init.connect
def open_tracing(**_: object) -> None:
    global SPAN
    SPAN = opened.enter_context(tracing("tests"))


@signals.worker_shutdown.connect
def close_tracing(**_: object) -> None:
    opened.close()


@app.task(name="ProofWritten")
def proof_written(run_id: str, proof_id: str) -> None:
    with SPAN("engine verifier", run_id, proof_id):
        pass


@app.task(name="ProofReviewed")
def proof_reviewed(proof: str) -> None:
    try:
        int(proof)
    except ValueError as error:
        raise RuntimeError(f"cannot use {proof}") from error


@contextmanager
def worker(
    url: str, queue: str, log: Path, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of this app in a separate process, stopped by SIGTERM like a service."""
    command: Sequence[str] = (
        *(sys.executable, "-m", "celery", "-A", "tests.integration.celery_app", "worker"),
        *("--pool", "solo", "--without-mingle", "--without-gossip", "--without-heartbeat"),
    )
    told = os.environ | {"TEST_BROKER": url, "TEST_QUEUE": queue} | environment
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=told, stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield process
    finally:
        end(process, signal.SIGTERM)
