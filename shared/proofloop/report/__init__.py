"""The report of a run or a curriculum: one HTML file that needs no network, made from the store's
records.
"""

from __future__ import annotations

from pathlib import Path

from proofloop.report.curriculum import CurriculumData, read_curriculum
from proofloop.report.data import ReportData, read_report

__all__ = [
    "CurriculumData",
    "ReportData",
    "is_report",
    "read_curriculum",
    "read_report",
    "write_report",
    "write_whole",
]


def write_report(data: ReportData | CurriculumData, file: Path) -> None:
    """Write the report to `file` atomically. Raises ConfigError if the extra `report` is not
    installed.
    """
    from proofloop.report.page import render

    write_whole(render(data).encode("utf-8", "replace"), file)


def is_report(file: Path) -> bool:
    """Whether a file is a report of proofloop, which may be replaced."""
    return file.is_file() and b'name="generator" content="proofloop"' in file.read_bytes()[:1000]


def write_whole(data: bytes, file: Path) -> None:
    """Write a file whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_bytes(data)
    temporary.replace(file)
