"""Fixtures for tests of services as processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.installation import Installation, installed
from tests.integration.servers import S3, Broker, s3_settings


@pytest.fixture
def installation(broker: Broker, s3: S3, tmp_path: Path) -> Iterator[Installation]:
    with s3_settings(s3) as settings, installed(settings, broker.url, tmp_path) as one:
        yield one
