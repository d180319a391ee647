"""Logs go to what stderr is now, not to what it was when logging began."""

from __future__ import annotations

import importlib
import io
import json
import logging
import sys

import pytest
import structlog

from proofloop.worker.logs import configure_logging


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
    assert [json.loads(line)["event"] for line in now.getvalue().splitlines()] == [
        "second",
        "library_message",
    ]


def test_what_pika_logs_of_a_failed_connection_is_hidden(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Our own event or error names the reason once."""
    handlers = logging.root.handlers[:]
    try:
        configure_logging("warning")
        logging.getLogger("pika.channel").warning("Received remote Channel.Close (404)")
        logging.getLogger("pika.adapters.blocking_connection").error("Connection workflow failed")
        logging.getLogger("another").error("another matter")
    finally:
        logging.root.handlers[:] = handlers
        structlog.reset_defaults()
    assert [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()] == [
        "another matter"
    ]


def test_a_terminal_gets_no_escape_sequences_of_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers = logging.root.handlers[:]
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    try:
        configure_logging("warning")
        log = structlog.get_logger()
        log.warning("message_failed", reason="\x1b]0;title\x07")
        try:
            raise ValueError("\x1b]0;title\x07")
        except ValueError:
            log.exception("message_failed")
    finally:
        logging.root.handlers[:] = handlers
        structlog.reset_defaults()
    assert terminal.getvalue().count("\ufffd]0;title\ufffd") == 2
    assert "\x1b]" not in terminal.getvalue()


@pytest.mark.parametrize(
    ("given", "shown"), [("WARNING", "info"), ("DEBUG", "debug"), ("ERROR", "error")]
)
def test_celerys_level_counts_where_it_is_not_its_default(
    given: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROOFLOOP_BROKER", "amqp://guest:guest@127.0.0.1:1/")
    monkeypatch.setenv("PROOFLOOP_LOG_LEVEL", "info")
    service = importlib.import_module("proofloop.worker.service")
    levels: list[str] = []
    monkeypatch.setattr(service, "configure_logging", levels.append)
    service._set_up_logging(logging.getLevelNamesMapping()[given])
    assert levels == [shown]
