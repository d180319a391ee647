"""What `doctor` reports of this machine."""

from __future__ import annotations

from pathlib import Path

from proofloop.cli.doctor.command import _disk


def test_the_disk_is_that_of_the_store(tmp_path: Path) -> None:
    assert _disk(tmp_path / "not" / "yet").found.endswith(f" GB free in {tmp_path}")
    assert _disk(Path("/proc/store")).state == "warning"  # a file system without any room
