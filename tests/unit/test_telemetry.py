"""Logs go to what stderr is now, not to what it was when logging began."""

from __future__ import annotations

import io
import json
import logging
import sys

import pytest
import structlog

from proofloop.telemetry import configure_logging


def test_a_logger_that_was_used_before_stderr_was_replaced_writes_to_the_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handlers = logging.root.handlers[:]
    try:
        with io.StringIO() as before:
            monkeypatch.setattr(sys, "stderr", before)
            configure_logging("warning")
            log = structlog.get_logger()
            log.warning("first")
        monkeypatch.setattr(sys, "stderr", now := io.StringIO())  # the one before is closed
        log.warning("second")
        logging.getLogger("somebody").error("third")
    finally:
        logging.root.handlers[:] = handlers
        structlog.reset_defaults()
    assert [json.loads(line)["event"] for line in now.getvalue().splitlines()] == ["second", "library_said"]
