"""Ids, and the names of answers: made and parsed here, so nothing else takes them apart.

A proof's id is its problem's id with a number: `p1-000`. An answer about a proof has a name:
`attempt-2` is an attempt that was refined, `critique-3` a critique, `unread-3` the unreadable
answer in whose place critique 3 was requested again, `meta-3-1` meta-critique 1 of critique 3,
`meta-self-0` meta-critique 0 of the generator's own critique.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import StringConstraints

from proofloop.errors import ConfigError

SELF_CRITIQUE = -1
"""The index of the generator's own critique of its proof."""

SELF = "self"
"""Names that index in keys and names."""

ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
_ID = re.compile(ID_PATTERN)

Id = Annotated[str, StringConstraints(pattern=rf"^{ID_PATTERN}\z")]
"""A name that can be part of a key. Ids in messages are checked as the messages come in."""

AnswerKind = Literal["proof", "attempt", "critique", "unread", "meta"]
_NUMBERED: tuple[AnswerKind, ...] = ("attempt", "critique", "unread")

_NAME = re.compile(
    r"proof(?:-(?P<proof>\d{1,5}))?|attempt-(?P<attempt>\d{1,5})|critique-(?P<critique>\d{1,5})"
    r"|unread-(?P<unread>\d{1,5})"
    r"|meta-(?P<of>\d{1,5}|self)-(?P<meta>\d{1,3})",
    re.ASCII,
)


def is_id(value: str) -> bool:
    """Whether the value can be part of a key."""
    return _ID.fullmatch(value) is not None


def check_id(value: str, what: str) -> str:
    """The value, if it can be part of a key. Raises ConfigError otherwise."""
    if not is_id(value):
        raise ConfigError(
            f"{what} {value[:60]!r} cannot be part of a key",
            "use 1 to 100 letters, digits, dots, dashes or underscores, beginning with a letter or"
            " digit",
        )
    return value


def case_id(number: int) -> str:
    """The problem id of a given case; cases are counted over all portions of a run."""
    return f"c{number:06d}"


def proof_id(problem_id: str, number: int) -> str:
    """The id of a problem's proof of that number."""
    return f"{problem_id}-{number:03d}"


def single_call(kind: Literal["prove", "judge"], digest: str) -> str:
    """The name of the run of one `prove` or `judge` call."""
    return f"{kind}-{digest}"


def is_single_call(run_id: str) -> bool:
    """Whether the run is of one `prove` or `judge` call."""
    return bool(re.fullmatch(r"(?:prove|judge)-[0-9a-f]{12}", run_id))


def problem_of(proof_id: str) -> str:
    """The id of the problem that a proof's id names."""
    return proof_id.rpartition("-")[0]


def index_name(index: int, digits: int = 1) -> str:
    """A critique's index in a name or a key."""
    return SELF if index == SELF_CRITIQUE else f"{index:0{digits}d}"


def parse_index(name: str) -> int:
    """The index that `index_name` wrote."""
    return SELF_CRITIQUE if name == SELF else int(name)


@dataclass(frozen=True)
class AnswerName:
    """The name of an answer about a proof: the proof itself, an attempt, a critique or a
    meta-critique.

    `index` numbers an attempt, a critique, and the calls that write a proof (`proof`, `proof-1`:
    one call an attempt). A meta-critique has its critique's `index` and a `number`.
    """

    kind: AnswerKind
    index: int = 0
    number: int = 0

    def __str__(self) -> str:
        match self.kind:
            case "proof":
                return f"proof-{self.index}" if self.index else "proof"
            case "meta":
                return f"meta-{index_name(self.index)}-{self.number}"
            case _:
                return f"{self.kind}-{self.index}"

    def of(self, proof_id: str) -> str:
        """The name with its proof's id, as `proofloop proof` takes it."""
        return proof_id if self.kind == "proof" else f"{proof_id}/{self}"


PROOF = AnswerName("proof")


def proof_name(attempt: int) -> AnswerName:
    """The generator's call for this attempt at a proof."""
    return AnswerName("proof", attempt)


def attempt_name(number: int) -> AnswerName:
    return AnswerName("attempt", number)


def critique_name(index: int) -> AnswerName:
    return AnswerName("critique", index)


def unread_name(index: int) -> AnswerName:
    return AnswerName("unread", index)


def meta_name(index: int, number: int) -> AnswerName:
    return AnswerName("meta", index, number)


def parse_answer_name(name: str) -> AnswerName | None:
    """The answer of that name; None for a name that no answer has."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    return matched_answer(match) or proof_name(int(match["proof"] or 0))


def matched_answer(match: re.Match[str]) -> AnswerName | None:
    """The answer that a pattern matched; None for a proof. The pattern has a group for each kind,
    and the group `of` for the index of a meta-critique's critique.
    """
    for kind in _NUMBERED:
        if match[kind] is not None:
            return AnswerName(kind, int(match[kind]))
    return meta_name(parse_index(match["of"]), int(match["meta"])) if match["meta"] else None


@dataclass(frozen=True)
class CallId:
    """The identity of a model call. Messages that need the same answer make the same id and share
    the call.

    It leaves out the model version, because another version may be in service by the second
    message.
    """

    run_id: str
    role: str
    proof_id: str
    name: str

    def __str__(self) -> str:
        return f"{self.run_id}/{self.role}/{self.proof_id}/{self.name}"


def parse_call_id(text: str) -> CallId:
    """The call that `str(CallId)` names."""
    return CallId(*text.split("/", 3))
