"""The report as one file: its formulas are set although it loads nothing."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page

from proofloop.report import read_report, write_report
from proofloop.runs.create import create_run
from proofloop.store.local import LocalStore
from tests.browser.accessibility import grave_faults
from tests.builders import RUN, put_case, runspec


def test_formulas_of_a_report_are_set_without_a_server(page: Page, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    create_run(store, runspec(), resume=False)
    put_case(
        store,
        solution="Let $x_1 \\in \\mathbb{R} \\text{ or not}$.\n\n- **So** \\[ x = \\sqrt{2} \\]",
    )
    write_report(read_report(store, RUN), tmp_path / "report.html")
    page.goto((tmp_path / "report.html").as_uri())
    page.evaluate("typeset.all()")
    assert page.locator("article span.formula .katex-html").count() == 3
    page.evaluate("document.fonts.ready")
    loaded = "[...document.fonts].filter(font => font.status === 'loaded').map(font => font.family)"
    assert "KaTeX_AMS" in page.evaluate(loaded)
    style = "element => getComputedStyle(element).padding"
    assert page.locator(".katex-html .text").first.evaluate(style) == "0px"  # the report has .text
    assert grave_faults(page) == []
