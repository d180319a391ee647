"""Logging: events with fields, coloured on a terminal and JSON otherwise, always on stderr. stdout
is data.
"""

from __future__ import annotations

import logging
import sys
from typing import TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from proofloop.typeset.printable import printable

LIBRARIES = logging.WARNING
"""Messages of libraries are shown from this level on, whatever our own level."""

HIDDEN = "pika"
"""The logger whose messages are hidden. Pika logs each failed connection several times, with
tracebacks; our own event or error names the reason once.
"""


def configure_logging(level: str) -> None:
    """Send our events from this level on, and the warnings of libraries, to stderr."""
    _configure_events(level)
    logging.basicConfig(handlers=[_FromLibraries()], level=LIBRARIES, force=True)
    logging.getLogger(HIDDEN).setLevel(logging.CRITICAL)


def configure_default_events() -> None:
    """Send our warnings to stderr, unless this process has configured structlog itself."""
    if not structlog.is_configured():
        _configure_events("warning")


def _configure_events(level: str) -> None:
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *(_FOR_A_TERMINAL if sys.stderr.isatty() else _FOR_A_FILE),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Stderr())),
        cache_logger_on_first_use=True,
    )


def _as_printable(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """The texts of an event without escape sequences: they may quote an answer."""
    return {key: printable(each) if isinstance(each, str) else each for key, each in event.items()}


_FOR_A_TERMINAL: tuple[Processor, ...] = (
    _as_printable,
    structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
)
_FOR_A_FILE: tuple[Processor, ...] = (structlog.processors.JSONRenderer(),)


class _Stderr:
    """Writes to the current stderr: loggers are cached, and the stderr at their creation may be
    closed.
    """

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


class _FromLibraries(logging.Handler):
    """Turns log records of libraries (module `logging`) into events."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            record.levelno,
            "library_message",
            library=record.name,
            message=record.getMessage(),
            exc_info=record.exc_info,
        )
