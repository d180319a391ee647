"""Pages that show one typeset text, under the strictest policy that works."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from proofloop.typeset.assets import FOLDER, head
from proofloop.typeset.markdown import typeset

POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src data:"


def app_of(text: str) -> Starlette:
    """An application whose one page shows the text."""

    def page(_: Request) -> HTMLResponse:
        html = (
            f'<!doctype html><html lang="en"><title>text</title><link rel="icon" href="data:,">'
            f"{head('/typeset')}<body>{typeset(text)}"
        )
        return HTMLResponse(html, headers={"Content-Security-Policy": POLICY})

    files = Mount("/typeset", StaticFiles(directory=FOLDER))
    return Starlette(routes=[Route("/", page), files])


def shown(page: Page, serve: Callable[[Starlette], str], text: str) -> Page:
    """The page with every formula set."""
    page.goto(serve(app_of(text)))
    page.evaluate("typeset.all()")
    return page
