"""The settings that say who may grade."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from proofloop.config.settings import load_settings
from proofloop.errors import ConfigError
from proofloop.ui.access import Access


def access(monkeypatch: pytest.MonkeyPatch, **settings: str) -> Access:
    for name, value in settings.items():
        monkeypatch.setenv(f"PROOFLOOP_REVIEW_{name}", value)
    return Access.of(load_settings())


def test_each_way_to_log_in_closes_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    assert access(monkeypatch).is_open
    found = access(
        monkeypatch,
        TOKEN="word",
        PASSWORDS="Emmy Noether:a:b\n\n  Emil:two ",
        USER_HEADER="X-Forwarded-User",
        PROXIES="10.0.0.0/8, 192.0.2.1",
    )
    assert not found.is_open
    assert found == Access(
        token="word",
        passwords={"Emmy Noether": "a:b", "Emil": "two"},
        header="X-Forwarded-User",
        proxies=(ip_network("10.0.0.0/8"), ip_network("192.0.2.1/32")),
    )


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"PASSWORDS": "Emmy"}, "line 1 is not NAME:PASSWORD"),
        ({"PASSWORDS": "Emmy:one\nEmmy:two"}, "line 2 is not NAME:PASSWORD, or repeats a name"),
        ({"PASSWORDS": "labeler:one"}, "line 1 is not NAME:PASSWORD"),
        ({"USER_HEADER": "X-User"}, "belong together"),
        ({"PROXIES": "10.0.0.0/8"}, "belong together"),
        ({"USER_HEADER": "X-User", "PROXIES": "10.0.0.1/8"}, "has host bits set"),
        ({"USER_HEADER": "X User", "PROXIES": "10.0.0.0/8"}, "PROOFLOOP_REVIEW_USER_HEADER"),
    ],
)
def test_a_bad_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        access(monkeypatch, **settings)
