"""The report of a run: one HTML file that needs no network, made from what the store holds and an optional summary."""

from __future__ import annotations

from pathlib import Path

from proofloop.report.data import ReportData, read_report

__all__ = ["ReportData", "read_report", "write_report"]


def write_report(data: ReportData, file: Path) -> None:
    """Write the report, whole or not at all. Raises ConfigError without the extra `report`."""
    from proofloop.report.page import render

    page = render(data).encode("utf-8", "replace")
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_bytes(page)
    temporary.replace(file)
