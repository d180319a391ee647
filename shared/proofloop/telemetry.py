"""Logs.

They are events with fields, pretty on a terminal and JSON otherwise, always on stderr; stdout is data.
"""

from __future__ import annotations

import logging
import sys
from typing import TextIO, cast

import structlog

LIBRARIES = logging.WARNING
"""What libraries log is shown from this level on, whatever our own."""

QUIET = ("pika.channel",)
"""Libraries whose warnings tell nothing new: pika warns when we look for a queue that is not there."""


def configure_logging(level: str) -> None:
    """Send our events to stderr from this level on, and the warnings of libraries with them."""
    pretty = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info if not pretty else structlog.processors.StackInfoRenderer(),
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
            if pretty
            else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Stderr())),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_FromLibraries()], level=LIBRARIES, force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)


class _Stderr:
    """Whatever stderr is when something is said: the one of now may be closed by then, and a logger is kept."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


class _FromLibraries(logging.Handler):
    """Makes an event of what a library logs by the standard library's `logging`."""

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage()
        structlog.get_logger().log(
            record.levelno, "library_said", library=record.name, said=said, exc_info=record.exc_info
        )
