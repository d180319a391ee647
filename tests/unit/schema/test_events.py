"""The six events: every one ever released still decodes, and what is none is refused."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proofloop.errors import Reject
from proofloop.schema.events import (
    EVENTS,
    MAX_BODY_BYTES,
    Event,
    FineTuningPosed,
    ModelPublished,
    ParentProof,
    ProblemPosed,
    ProofLabeled,
    ProofReviewed,
    ProofWritten,
    ReviewJudged,
    decode,
    encode,
)
from tests.builders import label

GOLDEN = Path(__file__).parents[2] / "golden"
RELEASED: dict[str, Event] = {
    "ProblemPosed-1": ProblemPosed(
        run_id="demo-0",
        problem_id="nano-01",
        proof_id="nano-01-003",
        group="nano-01",
        parents=(
            ParentProof(proof_id="nano-01-000", critiques=(-1, 4)),
            ParentProof(proof_id="nano-01-001"),
        ),
    ),
    "ProblemPosed-2": ProblemPosed(
        run_id="demo-0", problem_id="nano-01", proof_id="nano-01-003", group="nano-01", attempt=2
    ),
    "ProofWritten-1": ProofWritten(
        run_id="demo-0", proof_id="nano-01-003", index=7, verifier_version="nano-base"
    ),
    "ProofReviewed-1": ProofReviewed(run_id="demo-0", proof_id="nano-01-003", index=-1),
    "ReviewJudged-1": ReviewJudged(run_id="demo-0", proof_id="nano-01-003", index=0),
    "ProofLabeled-1": ProofLabeled(
        run_id="demo-0",
        proof_id="nano-01-003",
        problem_id="nano-01",
        group="nano-01",
        outcome="undecided",
        kind="undecided",
        score=None,
    ),
    "ProofLabeled-2": ProofLabeled(
        run_id="demo-0",
        proof_id="nano-01-003",
        problem_id="nano-01",
        group="nano-01",
        outcome="rejected",
        kind="rejected_upheld",
        score=0.5,
        by="Emmy Noether",
        grade=0,
    ),
    "FineTuningPosed-1": FineTuningPosed(run_id="iterate-0-cold_start"),
    "ModelPublished-1": ModelPublished(
        run_id="demo-0",
        role="verifier",
        version="runs/demo-0/models/verifier/000002",
        digest="ab" * 32,
    ),
}
IDS = {
    "ProblemPosed-1": "ProblemPosed/demo-0/nano-01-003",
    "ProblemPosed-2": "ProblemPosed/demo-0/nano-01-003/2",
    "ProofWritten-1": "ProofWritten/demo-0/nano-01-003/7",
    "ProofReviewed-1": "ProofReviewed/demo-0/nano-01-003/-1",
    "ReviewJudged-1": "ReviewJudged/demo-0/nano-01-003/0",
    "ProofLabeled-1": "ProofLabeled/demo-0/nano-01-003",
    "ProofLabeled-2": "ProofLabeled/demo-0/nano-01-003/grade-0",
    "FineTuningPosed-1": "FineTuningPosed/iterate-0-cold_start",
    "ModelPublished-1": "ModelPublished/demo-0/runs/demo-0/models/verifier/000002",
}


def test_there_is_a_golden_file_of_every_event_and_a_check_for_every_file() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(RELEASED)
    assert {name.partition("-")[0] for name in RELEASED} == set(EVENTS)


@pytest.mark.parametrize("name", RELEASED)
def test_every_event_ever_released_still_means_the_same(name: str) -> None:
    event = decode((GOLDEN / f"{name}.json").read_bytes())
    assert event == RELEASED[name]
    assert event.id == IDS[name]


@pytest.mark.parametrize("event", RELEASED.values(), ids=RELEASED)
def test_an_event_survives_its_journey(event: Event) -> None:
    assert decode(encode(event)) == event


@pytest.mark.parametrize("event", RELEASED.values(), ids=RELEASED)
def test_fields_of_a_newer_version_are_ignored(event: Event) -> None:
    newer = {**json.loads(encode(event)), "colour": "green", "nested": {"a": [1]}}
    assert decode(json.dumps(newer).encode()) == event


def test_events_are_routed_by_name_and_published_models_by_role_too() -> None:
    keys = [event.routing_key for event in RELEASED.values()]
    assert keys == [
        "ProblemPosed",
        "ProblemPosed",
        "ProofWritten",
        "ProofReviewed",
        "ReviewJudged",
        "ProofLabeled",
        "ProofLabeled",
        "FineTuningPosed",
        "ModelPublished.verifier",
    ]


def test_the_event_of_a_label_says_what_the_label_says() -> None:
    expected = ProofLabeled(
        run_id="r1",
        proof_id="p1-000",
        problem_id="p1",
        group="p1",
        outcome="accepted",
        kind="accepted",
        score=1.0,
    )
    assert ProofLabeled.of(label()) == expected


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not an event"),
        (b"\x80\x04K\x01.", "not an event"),
        (b"[" * 60_000, "not an event"),
        (b'{"event":' * 7_000, "not an event"),
        (b"1" * 60_000, "not an event"),
        (b"null", "no JSON object with the field 'event'"),
        (b'["event"]', "no JSON object with the field 'event'"),
        (b"{}", "no JSON object with the field 'event'"),
        (b'{"event": ["ProofWritten"]}', r"unknown event \['ProofWritten'\]"),
        (
            b'{"event": "ProofEaten"}',
            "unknown event 'ProofEaten'; this version knows ProblemPosed, ProofWritten",
        ),
        (b'{"event": "Event"}', "unknown event 'Event'"),
        (
            b'{"event": "ReviewJudged", "run_id": "r", "proof_id": "p"}',
            "not a valid ReviewJudged: index: Field required",
        ),
        (
            b'{"event": "ReviewJudged", "run_id": "r", "proof_id": "p", "index": -2}',
            "not a valid ReviewJudged: index = -2: ",
        ),
        (
            b'{"event": "ReviewJudged", "run_id": "r", "proof_id": "../p", "index": 0}',
            "not a valid ReviewJudged: proof_id = '../p': ",
        ),
        (
            b'{"event": "ReviewJudged", "run_id": "a/b", "proof_id": "p", "index": 0}',
            "not a valid ReviewJudged: run_id = ",
        ),
        (
            b'{"event": "ReviewJudged", "run_id": "r\\n", "proof_id": "p", "index": 0}',
            "not a valid ReviewJudged: run_id = ",
        ),
        (
            b"x" * (MAX_BODY_BYTES + 1),
            f"the body has {MAX_BODY_BYTES + 1} bytes; an event has at most {MAX_BODY_BYTES}",
        ),
    ],
    ids=range(17),
)
def test_what_is_no_event_is_rejected_with_the_reason(body: bytes, reason: str) -> None:
    with pytest.raises(Reject, match=reason):
        decode(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
FIELDS = st.dictionaries(
    st.sampled_from(["run_id", "proof_id", "index", "role", "parents", "score"]),
    JSON | st.integers(),
)


@given(st.one_of(st.binary(max_size=200), JSON.map(json.dumps).map(str.encode)))
def test_garbage_is_an_event_or_rejected_and_nothing_else(body: bytes) -> None:
    with pytest.raises(Reject):
        decode(body)


@given(st.sampled_from(sorted(EVENTS)), FIELDS)
def test_an_event_with_wrong_fields_is_an_event_or_rejected_and_nothing_else(
    name: str, fields: dict[str, object]
) -> None:
    with suppress(Reject):
        assert decode(json.dumps({"event": name, **fields}).encode()).name == name
