"""Without `[flow]`, as much is in work as keeps the engines full."""

from __future__ import annotations

from typing import Any

import pytest

from proofloop.config.run_file import RunSpec, parse_runspec
from proofloop.runs.flow import critiques_at_once, in_work, most_waiting_proofs, unfilled


def spec_with(settings: dict[str, Any], kind: str = "simulated", **flow: int) -> RunSpec:
    return parse_runspec(
        {
            "name": "small",
            "problems": {"domain": "nano"},
            "engine": {"kind": kind, "settings": settings},
            "models": dict.fromkeys(("generator", "verifier", "meta_verifier"), "m"),
            "flow": flow,
        },
        "the test",
    )


URL = {"base_url": "http://x/v1"}


@pytest.mark.parametrize(
    ("spec", "messages", "proofs"),
    [
        (spec_with({"max_concurrency": 1000}), 1000, 2000),
        (spec_with({}), 256, 512),
        (spec_with(URL, "openai"), 64, 256),
        (spec_with(URL | {"max_concurrency": 4096}, "openai"), 4096, 8192),
        (
            spec_with({"endpoints": [URL | {"weight": 3}, {"base_url": "http://y/v1"}]}, "openai"),
            85,
            256,
        ),
        (spec_with({}, generator=7, verifier=7, meta_verifier=7, max_waiting_proofs=3), 7, 3),
    ],
)
def test_messages_follow_from_the_engine_unless_set(
    spec: RunSpec, messages: int, proofs: int
) -> None:
    roles = ("generator", "verifier", "meta_verifier")
    assert [in_work(spec, role) for role in roles] == [messages] * 3
    assert (in_work(spec, "labeler"), in_work(spec, "trainer")) == (2, 1)
    assert most_waiting_proofs(spec) == proofs


def test_an_engine_without_a_limit_has_the_defaults_of_services() -> None:
    spec = spec_with({}, "local")
    assert [in_work(spec, role) for role in ("generator", "verifier")] == [32, 64]


def test_a_flow_that_cannot_fill_the_engine_is_named() -> None:
    [problem] = unfilled(spec_with({}, generator=8, verifier=16, meta_verifier=8))
    assert problem == (
        "[flow] generator = 8, verifier = 16, meta_verifier = 8 allows 48 calls at once, but the"
        " engine takes 256"
    )
    assert unfilled(spec_with({}, generator=64, verifier=64, meta_verifier=64)) == []
    assert unfilled(spec_with({})) == []


def test_searches_keep_more_critiques_in_flight_than_the_verifier_handles() -> None:
    spec = spec_with({}, verifier=64)
    assert critiques_at_once(spec, running=0) == 80
    assert critiques_at_once(spec, running=64) == 80
    assert critiques_at_once(spec, running=128) == 160  # more services
