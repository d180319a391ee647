"""The web pages in a real browser: keys, live status, critiques that load, phone and dark."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect
from starlette.applications import Starlette

from proofloop.config.settings import Settings
from proofloop.runs.create import create_run
from proofloop.runs.index import open_index
from proofloop.schema import keys
from proofloop.schema.records import Problem
from proofloop.store import LocalStore, put_record
from proofloop.ui.access import Access
from proofloop.ui.app import make_app
from proofloop.ui.fresh_index import FreshIndex
from proofloop.ui.live import LiveRuns
from proofloop.ui.site import Site
from tests.browser.accessibility import grave_faults
from tests.builders import PROOF, RUN, critique, label, proof, put_case, runspec, valid

SOLUTION = (
    "Let $n = 2k$ be even, as assumed.\n\n"
    "**Step 2.** Then $\\sqrt{n^2 + 1} > n$, and the claim is trivially true."
)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A run with a problem whose proof has eight critiques, and a problem without a proof."""
    store = LocalStore(tmp_path / "store")
    create_run(store, runspec(), resume=False)
    put_case(store, PROOF, SOLUTION, scores=[0.5] * 7)
    quoting = critique(7, valid(0.0), 'Why is "the claim is trivially true"? $x^2$ is not enough.')
    put_record(store, keys.critique(RUN, PROOF, 7), quoting)
    put_record(store, keys.problem(RUN, "p2"), Problem(id="p2", question="Prove $1 < 2$."))
    return store


@pytest.fixture
def address(store: LocalStore, tmp_path: Path, serve: Callable[[Starlette], str]) -> Iterator[str]:
    stopping = threading.Event()
    index = FreshIndex(
        open_index(store, tmp_path / "cache"), store, stopping, wait_s=20.0, fresh_s=0.0
    )
    site = Site(store, index, LiveRuns(store, index, Settings(), status_s=0.0))
    yield serve(make_app(site, stopping, Access()))
    stopping.set()
    index.close()


def press(page: Page, *keys: str) -> None:
    """Press keys on a page whose scripts have run."""
    page.wait_for_load_state("load")
    for key in keys:
        page.keyboard.press(key)


def test_a_run_is_read_with_the_keyboard_alone(page: Page, address: str) -> None:
    page.goto(address)
    press(page, "j", "Enter")
    page.wait_for_url(f"{address}/runs/{RUN}")
    press(page, "/", "p", "1", "Enter")
    page.wait_for_url(f"{address}/runs/{RUN}?*search=p1*")
    press(page, "j", "Enter")
    page.wait_for_url(f"{address}/runs/{RUN}/problems/p1")
    press(page, "j", "Enter")
    page.wait_for_url(f"{address}/runs/{RUN}/proofs/{PROOF}")
    press(page, "u")
    page.wait_for_url(f"{address}/runs/{RUN}/problems/p1")
    press(page, "?")
    expect(page.locator("#keys")).to_have_attribute("open", "")


def test_the_page_of_a_run_follows_it_without_a_reload(
    page: Page, address: str, store: LocalStore
) -> None:
    page.goto(f"{address}/runs/{RUN}")
    outcomes = page.locator(".outcomes")
    expect(outcomes).not_to_contain_text("accepted")
    put_record(store, keys.proof(RUN, "p1-001"), proof(id="p1-001"))
    put_record(store, keys.label(RUN, "p1-001"), label(proof_id="p1-001"))
    expect(outcomes).to_contain_text("accepted 1")


def test_the_page_of_a_run_follows_it_again_after_an_error_of_a_proxy(
    chromium: Browser, address: str, store: LocalStore
) -> None:
    context = chromium.new_context()  # the refusal is an error on the console
    page = context.new_page()
    page.route("**/events", lambda route: route.fulfill(status=502), times=1)
    page.goto(f"{address}/runs/{RUN}")
    put_record(store, keys.proof(RUN, "p1-001"), proof(id="p1-001"))
    put_record(store, keys.label(RUN, "p1-001"), label(proof_id="p1-001"))
    expect(page.locator(".outcomes")).to_contain_text("accepted 1", timeout=20_000)
    context.close()


def test_formulas_of_a_proof_are_set_and_its_notes_lead_to_critiques(
    page: Page, address: str
) -> None:
    page.goto(f"{address}/runs/{RUN}/proofs/{PROOF}")
    expect(page.locator("#passage-1 .katex-html").first).to_be_visible()
    expect(page.locator("#passage-1 .katex-html .sqrt svg path").first).to_be_visible()
    note = page.locator("#passage-1 a.beside", has_text="trivially true")
    note.click()
    opened = page.locator("#critique-7")
    expect(opened).to_have_attribute("open", "")
    expect(opened.locator(".katex-html").first).to_be_visible()


def test_a_critique_that_is_opened_is_loaded(page: Page, address: str) -> None:
    page.goto(f"{address}/runs/{RUN}/proofs/{PROOF}")
    last = page.locator("details.critique[data-part]").last
    last.locator("summary").click()
    expect(page.locator("details.critique .body", has_text="Every step holds").last).to_be_visible()
    expect(page.locator("details[open][data-part]")).to_have_count(0)


@pytest.mark.parametrize(
    "path", ["/", "/runs/r1", "/runs/r1/problems/p1", "/runs/r1/proofs/p1-000"]
)
def test_pages_fit_on_a_phone_and_have_a_dark_side(
    context: BrowserContext, address: str, path: str
) -> None:
    page = context.new_page()
    page.set_viewport_size({"width": 390, "height": 844})
    page.emulate_media(color_scheme="dark")
    page.goto(f"{address}{path}")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    red, *_ = page.evaluate(
        "getComputedStyle(document.body.parentElement).backgroundColor.match(/\\d+/g)"
    )
    assert int(red) < 60
    assert grave_faults(page) == []
