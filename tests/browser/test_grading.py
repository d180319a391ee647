"""Grading as a person does it, in a browser and by keyboard."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect
from starlette.types import ASGIApp

from proofloop.runs.create import create_run
from proofloop.runs.grading.history import grades_of
from proofloop.runs.labels import find_label
from proofloop.schema import keys
from proofloop.schema.records import Grade, Mark
from proofloop.store import LocalStore
from proofloop.ui.access import Access, guarded_app
from proofloop_labeler.review.app import grading_app
from proofloop_labeler.review.cases import Cases, Offer
from tests.browser.accessibility import grave_faults
from tests.builders import PROOF, RUN, put_case, put_grade, runspec

PROOFS = 20
SOLUTION = "First, $n = 2k$.\n\nThen\n$$4k\n= 2n$$ holds.\n\n- So it is even."


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path)
    create_run(store, runspec(), resume=False)
    for number in range(PROOFS):
        put_case(store, f"p1-{number:03d}", solution=SOLUTION)
    return store


@pytest.fixture
def site(store: LocalStore, serve: Callable[[ASGIApp], str]) -> Iterator[str]:
    pages = grading_app(store, Cases(store, Offer(overlap=2)), lambda run: None)
    yield serve(guarded_app(pages, Access()))


def begin(page: Page, site: str, name: str = "Emmy Noether") -> None:
    """Enter a name, and come to the first proof."""
    page.goto(f"{site}/runs/{RUN}")
    page.keyboard.type(name)
    press(page, "Enter")
    press(page, "n")


def press(page: Page, *keys: str) -> None:
    """Press keys, the last of which leads to another page."""
    for key in keys[:-1]:
        page.keyboard.press(key)
    with page.expect_navigation():
        page.keyboard.press(keys[-1])


def grades(store: LocalStore, proof_id: str = PROOF) -> tuple[Grade, ...]:
    return grades_of(store, RUN, proof_id)


def test_twenty_proofs_are_graded_by_keyboard_in_a_row(
    page: Page, site: str, store: LocalStore
) -> None:
    begin(page, site)
    for number in range(PROOFS):
        press(page, "123"[number % 3], "Enter")
    expect(page.get_by_text("Nothing waits for you.")).to_be_visible()
    given = [grades(store, f"p1-{number:03d}") for number in range(PROOFS)]
    assert [[each.score for each in of_proof] for of_proof in given] == [
        [(1.0, 0.5, 0.0)[number % 3]] for number in range(PROOFS)
    ]


def test_one_tab_leads_to_the_grades(page: Page, site: str) -> None:
    begin(page, site)
    assert page.evaluate("scrollY") == 0
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.name") == "score"


def test_a_grade_is_undone_and_corrected_by_keyboard(
    page: Page, site: str, store: LocalStore
) -> None:
    begin(page, site)
    press(page, "1", "Enter")
    press(page, "u")
    assert page.url.endswith(f"/proofs/{PROOF}?undone=1")
    expect(page.get_by_role("radio", checked=True)).to_have_value("1")
    press(page, "3", "c", "G", "a", "p", "Control+Enter")
    press(page, "b")
    expect(page.get_by_role("heading", name=re.compile("Critiques"))).to_be_visible()
    assert [(each.score, each.comment, each.is_blind) for each in grades(store)] == [
        (1.0, "", True),
        (None, "", True),
        (0.0, "Gap", True),
    ]


def test_critiques_appear_on_request_only(page: Page, site: str, store: LocalStore) -> None:
    begin(page, site)
    critiques = page.get_by_role("heading", name=re.compile("Critiques"))
    expect(critiques).to_have_count(0)
    press(page, "s")
    expect(critiques).to_be_visible()
    press(page, "2", "Enter")
    assert [each.is_blind for each in grades(store)] == [False]


def test_two_people_disagree_and_one_settles_the_case(
    page: Page, site: str, store: LocalStore, chromium: Browser
) -> None:
    begin(page, site)
    press(page, "1", "Enter")
    other = chromium.new_context().new_page()
    begin(other, site, "Emil Artin")
    press(other, "3", "Enter")
    other.goto(f"{site}/runs/{RUN}/disagreements")
    expect(other.get_by_text("Emmy Noether")).to_be_visible()
    other.get_by_role("link", name=PROOF).click()
    with other.expect_navigation():
        other.get_by_role("button", name="Save and settle").click()
    found = find_label(store, RUN, PROOF)
    assert found and (found.score, found.by) == (0.0, "Emil Artin")
    other.context.close()


def test_lines_are_marked_by_keyboard(page: Page, site: str, store: LocalStore) -> None:
    begin(page, site)
    for key in ("j", "j", "m"):
        page.keyboard.press(key)
    expect(page.get_by_label("Your mark on lines 3–5")).to_be_focused()
    page.keyboard.type("Why?")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".has-mark")).to_have_count(1)
    press(page, "2", "Enter")
    assert [each.marks for each in grades(store)] == [(Mark(first=3, last=5, comment="Why?"),)]
    press(page, "b")
    expect(page.locator(".has-mark")).to_have_count(1)


def test_a_mark_that_is_still_open_is_saved_with_the_grade(
    page: Page, site: str, store: LocalStore
) -> None:
    begin(page, site)
    for line in (1, 2):
        for key in ("j", "m"):
            page.keyboard.press(key)
        page.keyboard.type(f"Mark {line}.")
        page.locator("[name=score]").nth(line).check()
    press(page, "Enter")
    (given,) = grades(store)
    assert [mark.comment for mark in given.marks] == ["Mark 1.", "Mark 2."]


def test_a_draft_survives_a_reload(page: Page, site: str, store: LocalStore) -> None:
    begin(page, site)
    page.keyboard.press("2")
    page.keyboard.press("c")
    page.keyboard.type("A gap in step 2.")
    page.reload()
    expect(page.get_by_label("Comment")).to_have_value("A gap in step 2.")
    expect(page.get_by_text("Your draft is restored.")).to_be_visible()
    press(page, "Enter")
    assert [(each.score, each.comment) for each in grades(store)] == [(0.5, "A gap in step 2.")]
    page.goto(f"{site}/runs/{RUN}/proofs/{PROOF}")
    expect(page.get_by_text("Your draft is restored.")).to_have_count(0)


def test_a_grade_is_sent_again_when_the_connection_is_back(
    chromium: Browser, site: str, store: LocalStore
) -> None:
    context = chromium.new_context()  # a lost connection is an error on the console
    page = context.new_page()
    begin(page, site)
    context.set_offline(True)
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Not saved yet: the server does not answer")).to_be_visible()
    assert grades(store) == ()
    context.set_offline(False)
    page.wait_for_url("**/proofs/p1-001*")
    assert [each.score for each in grades(store)] == [1.0]
    context.close()


def test_a_grade_that_can_never_be_saved_is_not_sent_again_and_again(
    chromium: Browser, site: str, store: LocalStore
) -> None:
    context = chromium.new_context()  # a refusal is an error on the console
    page = context.new_page()
    begin(page, site)
    store.put_if_absent(keys.grade(RUN, PROOF, 0), b"{}")
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("An object in the store is damaged")
    context.close()


def test_a_draft_survives_the_login_page_of_a_proxy(page: Page, site: str) -> None:
    begin(page, site)
    page.keyboard.press("1")
    page.route(page.url, lambda route: route.fulfill(content_type="text/html", body="Log in"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("Not saved (200).")
    page.unroute(page.url)
    page.reload()
    expect(page.get_by_text("Your draft is restored.")).to_be_visible()
    expect(page.get_by_role("radio", checked=True)).to_have_value("1")


def test_the_keys_work_on_a_keyboard_of_another_script(page: Page, site: str) -> None:
    begin(page, site)
    first = page.url
    dispatch = "(key) => document.body.dispatchEvent(new KeyboardEvent('keydown', key))"
    for key, code in (("ο", "KeyO"), ("é", "Digit2")):
        page.evaluate(dispatch, {"key": key, "code": code, "bubbles": True})
    expect(page.get_by_role("radio", checked=True)).to_have_value("0.5")
    with page.expect_navigation():
        page.evaluate(dispatch, {"key": "т", "code": "KeyN", "bubbles": True})
    assert page.url != first


def test_the_form_covers_nothing_that_has_the_focus(
    page: Page, site: str, store: LocalStore
) -> None:
    put_case(store, PROOF, solution="\n\n".join([SOLUTION] * 5), scores=[0.0] * 6)
    page.emulate_media(reduced_motion="reduce")
    begin(page, site)
    press(page, "1", "Enter")
    press(page, "b")
    page.locator(".skip").focus()
    seen = 0
    while not page.evaluate("document.activeElement.closest('.bar') !== null"):
        page.keyboard.press("Tab")
        seen += 1
        assert page.evaluate(
            """() => {
                const [focused, bar] = [document.activeElement, document.querySelector(".bar")];
                const edge = (element) => element.getBoundingClientRect();
                return bar.contains(focused) || edge(focused).bottom <= edge(bar).top;
            }"""
        )
    assert seen > 6


def test_the_form_is_at_hand_on_a_phone(context: BrowserContext, page: Page, site: str) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    begin(page, site)
    bar, save = page.locator(".bar").bounding_box(), page.get_by_role("button", name="Save")
    expect(save).to_be_in_viewport()
    assert bar and bar["height"] < 0.35 * 800
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_table_of_agreement_fits_on_a_phone(page: Page, site: str, store: LocalStore) -> None:
    for number, name in enumerate(("Emil Artin", "Emmy Noether")):
        put_grade(store, 1.0, by=name, number=number)
    page.set_viewport_size({"width": 390, "height": 800})
    begin(page, site)
    page.goto(f"{site}/runs/{RUN}")
    expect(page.locator(".confusion")).to_have_count(1)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("colors", ["light", "dark"])
def test_the_pages_are_accessible(
    page: Page, site: str, chromium: Browser, colors: Literal["light", "dark"]
) -> None:
    page.emulate_media(color_scheme=colors)
    page.goto(f"{site}/runs/{RUN}")
    assert grave_faults(page) == []  # asks for the name
    begin(page, site)
    assert grave_faults(page) == []  # blind
    press(page, "1", "Enter")
    assert grave_faults(page) == []  # with the note of the saved grade
    press(page, "b")
    assert grave_faults(page) == []  # with critiques
    other = chromium.new_context().new_page()
    begin(other, site, "Emil Artin")
    press(other, "3", "Enter")
    other.context.close()
    for where in ("", f"/runs/{RUN}", f"/runs/{RUN}/disagreements"):
        page.goto(f"{site}{where}")
        assert grave_faults(page) == []
