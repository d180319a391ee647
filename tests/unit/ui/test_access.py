"""Who may read the pages, and what a browser may do with them."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from starlette.requests import Request

from proofloop.errors import ConfigError
from proofloop.ui.access import MOST_WRONG, Access, check_address
from tests.builders import RUN
from tests.unit.ui.conftest import Browse


def test_without_a_password_only_names_of_this_machine_are_answered(browser: Browse) -> None:
    def status(host: str) -> int:
        return browser().get("/", headers={"Host": host}).status_code

    for name in ("localhost", "localhost:8321", "127.0.0.1:8321", "127.0.0.2", "[::1]:8321"):
        assert status(name) == 200, name
    for name in ("rebound.example", "localhost.example", "10.0.0.1", "[::1", ""):
        assert status(name) == 400, name


def test_a_password_is_needed_for_every_address(browser: Browse) -> None:
    far = browser("a long word")
    for page in ("/", f"/runs/{RUN}", f"/runs/{RUN}/events", "/static/ui.js"):
        assert far.get(page, headers={"Host": "proofs.example"}).status_code == 401, page
    assert far.get("/", auth=("Emmy", "wrong")).status_code == 401
    assert far.get("/", headers={"Authorization": b"Basic \xe9"}).status_code == 401
    assert far.get("/", auth=("Emmy", "a long word")).status_code == 200


def test_guesses_of_passwords_are_limited_and_people_who_logged_in_stay(
    browser: Browse, monkeypatch: pytest.MonkeyPatch, quiet_log: None
) -> None:
    now_s = 60.0
    monkeypatch.setattr("proofloop.ui.access.monotonic", lambda: now_s)
    far = browser("a long word")

    def status(name: str, password: str) -> int:
        return far.get("/static/ui.js", auth=(name, password)).status_code

    assert far.get("/static/ui.js").status_code == 401  # the browser asks for the password
    assert status("Emmy", "a long word") == 200
    assert [status("Emmy", f"word {number}") for number in range(MOST_WRONG)] == [401] * MOST_WRONG
    assert status("Emmy", "another word") == status("Emil", "a long word") == 429
    assert status("Emmy", "a long word") == 200
    assert far.get("/static/ui.js").status_code == 401
    now_s += 60
    assert status("Emil", "a long word") == 200


def test_pages_run_only_scripts_of_this_site_and_are_kept_nowhere(browser: Browse) -> None:
    for page in ("/", "/runs/none", f"/runs/{RUN}"):
        headers = browser().get(page).headers
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"


def test_forms_of_other_sites_are_refused(browser: Browse) -> None:
    here = browser()
    other = {"Sec-Fetch-Site": "cross-site"}
    assert here.post("/", headers=other).status_code == 403
    assert here.post("/", headers={"Origin": "http://evil.example"}).status_code == 403
    assert here.post("/", headers={"Origin": "http://localhost"}).status_code == 405


@pytest.mark.parametrize("sent", ["Łukasz".encode(), "José".encode(), "José".encode("latin-1")])
def test_a_proxys_name_may_have_any_letters(sent: bytes) -> None:
    access = Access(header="X-User", proxies=(ip_network("10.0.0.0/8"),))
    scope = {"type": "http", "headers": [(b"x-user", sent)], "client": ("10.0.0.1", 4711)}
    assert access.person(Request(scope)) in ("Łukasz", "José")


@pytest.mark.parametrize(
    ("peer", "name"),
    [("10.0.0.1", "Emmy"), ("::ffff:10.0.0.1", "Emmy"), ("::ffff:11.0.0.1", None), ("::1", None)],
)
def test_a_proxy_of_ipv4_is_known_on_a_socket_of_ipv6_too(peer: str, name: str | None) -> None:
    access = Access(header="X-User", proxies=(ip_network("10.0.0.0/8"),))
    scope = {"type": "http", "headers": [(b"x-user", b"Emmy")], "client": (peer, 4711)}
    assert access.person(Request(scope)) == name


def test_an_address_that_others_reach_needs_a_password() -> None:
    check_address("127.0.0.1", Access())
    check_address("::1", Access())
    for host in ("0.0.0.0", ""):
        check_address(host, Access(token="a word"))
        with pytest.raises(ConfigError, match="PROOFLOOP_REVIEW_TOKEN"):
            check_address(host, Access())
