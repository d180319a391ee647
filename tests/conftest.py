"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest
import structlog

from tests.integration.installation import installation
from tests.integration.servers import broker, s3
from tests.integration.triton_server import triton

hypothesis.settings.register_profile("busy", deadline=None)  # how long a case takes says how busy the machine is
hypothesis.settings.load_profile("busy")

__all__ = ["broker", "installation", "quiet_log", "s3", "triton"]


@pytest.fixture
def quiet_log() -> Iterator[None]:
    """Errors that a test provokes on purpose are not shown."""
    structlog.configure(processors=[_drop])
    yield
    structlog.reset_defaults()


def _drop(logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    raise structlog.DropEvent
