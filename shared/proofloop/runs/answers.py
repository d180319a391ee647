"""The answers that a run paid for, as they lie in the store: by name, raw, and why some of them
could not be read.

An answer's name is its proof's, with what it is of that proof: `p1-000`, `p1-000/attempt-2`,
`p1-000/critique-3`, `p1-000/meta-3-1` (meta-critique 1 of critique 3), `p1-000/meta-self-0`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from proofloop.schema import keys
from proofloop.schema.records import MetaCritique, ModelRole, Proof, RawAnswer, Record, Verdict
from proofloop.store import Store, find_record, get_record

MOST_SCANNED = 20_000
"""Answers that are looked through for reasons: seconds in a folder, one or two minutes on S3."""

ROLE_OF_KIND: Mapping[str, ModelRole] = {
    "attempts": "generator",
    "critiques": "verifier",
    "meta_critiques": "meta_verifier",
}
"""The folders of a proof that hold answers."""


@dataclass(frozen=True)
class NamedVerdict:
    """What became of an answer."""

    role: ModelRole
    name: str
    verdict: Verdict


@dataclass(frozen=True)
class Unread:
    """Answers of a role that have no score for the same reason; `example` is the name of one,
    `reason` its own.
    """

    role: ModelRole
    outcome: str
    cause: str
    count: int
    example: str
    reason: str

    @property
    def words(self) -> str:
        cause = self.cause if self.outcome != "engine_failed" else f"failed: {self.cause}"
        return f"{self.count} of the {self.role.replace('_', '-')}: {cause} (as {self.example})"


@dataclass(frozen=True)
class Readability:
    """How many answers of each role there are and could be read; `unread` by reason, the commonest
    first.

    `is_whole`: all answers of the run were looked through. Those of a role without a readable
      answer always are.
    """

    seen: Mapping[ModelRole, int]
    read: Mapping[ModelRole, int]
    unread: tuple[Unread, ...]
    is_whole: bool

    @property
    def roles_without_any(self) -> tuple[ModelRole, ...]:
        """The roles none of whose answers could be read."""
        return tuple(role for role, seen in self.seen.items() if seen and not self.read[role])


class _Answer(Record):
    verdict: Verdict


def verdicts_of(store: Store, run_id: str) -> Iterator[NamedVerdict]:
    """The verdicts of all answers of a run, in the order of the store. No text is decoded."""
    root = keys.proofs(run_id)
    for key in store.list(root):
        proof_id, kind, *file = key.removeprefix(root).removesuffix(".json").split("/")
        if kind == "proof":
            yield NamedVerdict("generator", proof_id, get_record(store, key, _Answer).verdict)
        elif role := ROLE_OF_KIND.get(kind):
            name = answer_name(proof_id, kind, file)
            yield NamedVerdict(role, name, get_record(store, key, _Answer).verdict)


def answer_name(proof_id: str, kind: str, file: list[str]) -> str:
    """The name of an answer from the parts of its key."""
    numbers = "-".join(part if part == "self" else str(int(part)) for part in file)
    return f"{proof_id}/{kind.removesuffix('s').removesuffix('_critique')}-{numbers}"


def readability(store: Store, run_id: str, limit: int = MOST_SCANNED) -> Readability:
    """Look through `limit` answers of a run, and on until every role that was met has a readable
    one.
    """
    seen, read = Counter[ModelRole](), Counter[ModelRole]()
    found: dict[tuple[ModelRole, str, str], tuple[int, NamedVerdict]] = {}
    number = 0
    for number, each in enumerate(verdicts_of(store, run_id), 1):
        if number > limit and all(read[role] for role in seen):
            break
        seen[each.role] += 1
        if each.verdict.score is not None:
            read[each.role] += 1
            continue
        group = each.role, each.verdict.outcome, each.verdict.shared_reason
        count, first = found.get(group, (0, each))
        found[group] = count + 1, first
    unread = [
        Unread(role, outcome, cause, count, first.name, first.verdict.reason)
        for (role, outcome, cause), (count, first) in found.items()
    ]
    ordered = tuple(sorted(unread, key=lambda each: (-each.count, each.role, each.cause)))
    return Readability(seen, read, ordered, is_whole=number == seen.total())


def meta_critiques_of(
    store: Store, run_id: str, proof_id: str, index: int
) -> dict[int, MetaCritique]:
    """The meta-critiques of critique `index` by their numbers: m of them, or as many as fixed the
    majority.
    """
    listed = store.list(keys.meta_critiques(run_id, proof_id, index))
    return {int(key[-8:-5]): get_record(store, key, MetaCritique) for key in listed}


def raw_of_proof(store: Store, proof: Proof) -> RawAnswer | None:
    """What the generator wrote; None for a call that brought nothing."""
    return find_record(store, proof.raw_key, RawAnswer) if proof.raw_key else None
