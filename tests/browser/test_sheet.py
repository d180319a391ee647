"""The sheet in a real browser: every construct looks as LaTeX sets it."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import pytest
from PIL import Image
from playwright.sync_api import Page
from starlette.applications import Starlette

from tests.browser.sheet import EM_PX, compare, constructs, ink, near_misses
from tests.browser.typeset_pages import shown

Serve = Callable[[Starlette], str]
AT_ONCE = 30
"""Formulas on one page: Chromium's pictures are at most 16,384 pixels high."""

MARGIN_PX = 6
SIZE_OF_TEXT = f"document.body.style.fontSize = '{EM_PX / 1.21}px'"  # KaTeX sets 1.21 em


def pictures(page: Page, serve: Serve, formulas: Sequence[str]) -> list[Image.Image]:
    """Each formula as the browser draws it, cut to its ink."""
    found: list[Image.Image] = []
    for begin in range(0, len(formulas), AT_ONCE):
        shown(page, serve, "\n\n".join(formulas[begin : begin + AT_ONCE]))
        assert page.locator("code.formula").all_text_contents() == []
        page.evaluate(SIZE_OF_TEXT)
        page.evaluate("document.fonts.ready")
        picture = Image.open(io.BytesIO(page.screenshot(full_page=True, scale="css")))
        boxes = [paragraph.bounding_box() for paragraph in page.locator(".typeset > p").all()]
        found += [ink(picture.crop(_with_margin(box))) for box in boxes if box is not None]
    return found


def _with_margin(box: dict[str, float]) -> tuple[int, int, int, int]:
    left, top = int(box["x"]) - MARGIN_PX, int(box["y"]) - MARGIN_PX
    return left, top, left + int(box["width"]) + MARGIN_PX, top + int(box["height"]) + 2 * MARGIN_PX


@pytest.mark.slow
def test_every_construct_looks_as_latex_sets_it(page: Page, serve: Serve) -> None:
    named = dict(constructs())
    assert len(named) >= 120
    drawn = pictures(page, serve, list(named.values()))
    compared = {name: compare(name, found) for name, found in zip(named, drawn, strict=True)}
    assert {name: each for name, each in compared.items() if not each.agrees} == {}


@pytest.mark.slow
def test_a_wrong_setting_is_told_from_the_right_one(page: Page, serve: Serve) -> None:
    wrong = list(near_misses())
    drawn = pictures(page, serve, [latex for _, latex in wrong])
    compared = [
        (latex, compare(name, found)) for (name, latex), found in zip(wrong, drawn, strict=True)
    ]
    assert [each for each in compared if each[1].agrees] == []
