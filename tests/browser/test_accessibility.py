"""The check itself finds a fault."""

from __future__ import annotations

from playwright.sync_api import Page

from tests.browser.accessibility import grave_faults


def test_a_field_without_a_name_is_a_fault(page: Page) -> None:
    page.set_content("<html lang=en><title>A</title><main><h1>A</h1><input></main></html>")
    assert grave_faults(page) == ["label: <input>"]
