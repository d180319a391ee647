"""The events. Each names a change and carries ids; the records are in the store.

An event may gain fields with a default, and a reader ignores unknown fields. If the meaning of an
event changes, it becomes a new event with a new name.
"""

from __future__ import annotations

import json

from pydantic import Field, ValidationError
from pydantic_core import to_json

from proofloop.errors import Reject
from proofloop.schema.ids import SELF_CRITIQUE, Id
from proofloop.schema.records import (
    LABELER,
    Label,
    LabelKind,
    LabelOutcome,
    ModelRole,
    Record,
    Score,
)
from proofloop.schema.validation import first_problem

MAX_BODY_BYTES = 64 * 1024
"""An event carries names, never texts; a larger body is not one of ours."""


class Event(Record):
    """The base of all events.

    `id` is the same each time the same event is made, which identifies duplicates.
    """

    run_id: Id

    @property
    def name(self) -> str:
        return type(self).__name__

    @property
    def id(self) -> str:
        raise TypeError(f"{self.name} has no id")

    @property
    def routing_key(self) -> str:
        return self.name


class ParentProof(Record):
    """A proof to improve on, with the critiques that the prompt shows."""

    proof_id: Id
    critiques: tuple[int, ...] = (SELF_CRITIQUE,)


class ProblemPosed(Event):
    """Requests one proof of this problem, under this id.

    `attempt` counts the earlier attempts at this proof: the next one sees the last of them.
    `generator_version` writes it; empty: the version in service.
    """

    problem_id: Id
    proof_id: Id
    group: str
    parents: tuple[ParentProof, ...] = ()
    attempt: int = Field(0, ge=0)
    generator_version: str = ""

    @property
    def id(self) -> str:
        attempt = f"/{self.attempt}" if self.attempt else ""
        return f"{self.name}/{self.run_id}/{self.proof_id}{attempt}"


class OfProof(Event):
    """An event about critique `index` of a proof."""

    proof_id: Id
    index: int = Field(ge=SELF_CRITIQUE)

    @property
    def id(self) -> str:
        return f"{self.name}/{self.run_id}/{self.proof_id}/{self.index}"


class ProofWritten(OfProof):
    """A proof is stored. Requests critique `index` of it from this version of the verifier.

    The version is named here, because the critiques of one proof must not mix versions.
    """

    verifier_version: str


class ProofReviewed(OfProof):
    """A critique is stored (for index -1, beside the proof)."""


class ReviewJudged(OfProof):
    """The meta-verifier's judgement of a critique is stored."""


class ProofLabeled(Event):
    """A proof has its label: the labeler's, and again after each change by people's grades if the
    labeler could not decide. `grade`: the number of the last grade that counts.
    """

    proof_id: Id
    problem_id: Id
    group: str
    outcome: LabelOutcome
    kind: LabelKind
    score: Score | None
    by: str = LABELER
    solved: bool = False
    grade: int | None = None

    @classmethod
    def of(cls, label: Label) -> ProofLabeled:
        """The event that announces a label."""
        return cls(**label.model_dump(include=set(cls.model_fields)))

    @property
    def id(self) -> str:
        graded = "" if self.grade is None else f"/grade-{self.grade}"
        return f"{self.name}/{self.run_id}/{self.proof_id}{graded}"


class FineTuningPosed(Event):
    """Requests a run's supervised training; the run's spec names the data."""

    @property
    def id(self) -> str:
        return f"{self.name}/{self.run_id}"


class ModelPublished(Event):
    """A new version of one role's model is complete in the store."""

    role: ModelRole
    version: str
    digest: str

    @property
    def id(self) -> str:
        return f"{self.name}/{self.run_id}/{self.version}"

    @property
    def routing_key(self) -> str:
        return f"{self.name}.{self.role}"


EVENTS: dict[str, type[Event]] = {
    event.__name__: event
    for event in (
        ProblemPosed,
        ProofWritten,
        ProofReviewed,
        ReviewJudged,
        ProofLabeled,
        FineTuningPosed,
        ModelPublished,
    )
}


def encode(event: Event) -> bytes:
    """The event as JSON, its name beside its fields."""
    # Every event has a field: run_id at least.
    return b'{"event":"%b",' % event.name.encode() + to_json(event)[1:]


def decode(body: bytes) -> Event:
    """The event in a message body. Raises Reject with the reason if this version does not know
    it.
    """
    if len(body) > MAX_BODY_BYTES:
        raise Reject(f"the body has {len(body)} bytes; an event has at most {MAX_BODY_BYTES}")
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Reject(f"the body is not an event: {str(error)[:200]}") from error
    if not isinstance(fields, dict) or "event" not in fields:
        raise Reject("the body is not an event: it is no JSON object with the field 'event'")
    name = fields.pop("event")
    if not isinstance(name, str) or name not in EVENTS:
        raise Reject(f"unknown event {name!r:.80}; this version knows {', '.join(EVENTS)}")
    try:
        return EVENTS[name].model_validate(fields)
    except ValidationError as error:
        raise Reject(f"the body is not a valid {name}: {first_problem(error)}"[:400]) from error


def read_event(body: bytes) -> Event | None:
    """The event in a message body; None for a body without an event."""
    try:
        return decode(body)
    except Reject:
        return None


def read_event_of(run_id: str, body: bytes) -> Event | None:
    """The event in a message body if it is of that run."""
    event = read_event(body)
    return event if event is not None and event.run_id == run_id else None
