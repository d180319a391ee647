"""Fixtures for tests of services as processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.installation import Installation, installed
from tests.integration.servers import S3, Broker, bucket_folder


@pytest.fixture
def installation(broker: Broker, s3: S3, tmp_path: Path) -> Iterator[Installation]:
    with bucket_folder(s3) as (bucket, prefix):
        settings = {
            "S3_ENDPOINT": s3.endpoint,
            "S3_BUCKET": bucket,
            "S3_PREFIX": prefix,
            "S3_ACCESS_KEY": s3.access_key,
            "S3_SECRET_KEY": s3.secret_key,
        }
        with installed(settings, broker.url, tmp_path) as one:
            yield one
