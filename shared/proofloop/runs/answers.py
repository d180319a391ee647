"""The stored answers of a run: by name, raw, and the reasons for unreadable ones. `schema.ids`
describes their names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

from proofloop.schema import keys
from proofloop.schema.ids import AnswerKind
from proofloop.schema.records import (
    Critique,
    Judgement,
    MetaCritique,
    ModelRole,
    Problem,
    Proof,
    Provenance,
    RawAnswer,
    Record,
    Verdict,
)
from proofloop.store import Store, find_record, get_record, records_below

MOST_SCANNED = 20_000
"""Answers that are looked through for reasons: seconds in a folder, one or two minutes on S3."""

ROLE_OF_KIND: Mapping[AnswerKind, ModelRole] = {
    "proof": "generator",
    "attempt": "generator",
    "critique": "verifier",
    "unread": "verifier",
    "meta": "meta_verifier",
}
"""Which role gives which answers."""


@dataclass(frozen=True)
class NamedVerdict:
    """The verdict on an answer, with the answer's name."""

    role: ModelRole
    name: str
    verdict: Verdict


@dataclass(frozen=True)
class Unread:
    """Answers of a role without a score, for the same reason. `example` names one of them, `reason`
    is its own.
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
    """The number of answers of each role, and of readable ones; `unread` by reason, the commonest
    first.

    `is_whole`: all answers of the run were read. Those of a role without a readable answer always
    are.
    """

    seen: Mapping[ModelRole, int]
    read: Mapping[ModelRole, int]
    unread: tuple[Unread, ...]
    is_whole: bool

    @property
    def roles_without_any(self) -> tuple[ModelRole, ...]:
        """The roles without a readable answer."""
        return tuple(role for role, seen in self.seen.items() if seen and not self.read[role])


class _WithoutTexts(Record):
    """Reads an answer without its texts."""

    verdict: Verdict
    provenance: Provenance


def verdicts_of(store: Store, run_id: str) -> Iterator[NamedVerdict]:
    """The verdicts of all sampled answers of a run, in the order of the store. No text is
    decoded.
    """
    for key in store.list(keys.proofs(run_id)):
        answer = keys.parse_answer(key)
        if answer is None:
            continue
        found = get_record(store, key, _WithoutTexts)
        if found.provenance.is_sampled:
            name = answer.name.of(answer.proof_id)
            yield NamedVerdict(ROLE_OF_KIND[answer.name.kind], name, found.verdict)


def readability(store: Store, run_id: str, limit: int = MOST_SCANNED) -> Readability:
    """Read `limit` answers of a run, and more until every role with answers has a readable one."""
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


def proofs_of(store: Store, run_id: str) -> Iterator[Proof]:
    """The run's proofs, one at a time."""
    for key in store.list(keys.proofs(run_id)):
        if key.endswith("/proof.json"):
            yield get_record(store, key, Proof)


def question_of(store: Store, run_id: str, problem_id: str) -> str:
    """The text of a problem of the run."""
    return get_record(store, keys.problem(run_id, problem_id), Problem).question


def proofs_and_questions(store: Store, run_id: str) -> Iterator[tuple[Proof, str]]:
    """The run's proofs with the texts of their problems, each read once."""
    for problem_id, proofs in groupby(proofs_of(store, run_id), lambda proof: proof.problem_id):
        question = question_of(store, run_id, problem_id)
        yield from ((proof, question) for proof in proofs)


def critiques_of(store: Store, run_id: str, proof_id: str) -> Iterator[Critique]:
    """The stored critiques of a proof, one at a time."""
    return records_below(store, keys.critiques(run_id, proof_id), Critique)


def meta_critiques_of(
    store: Store, run_id: str, proof_id: str, index: int
) -> dict[int, MetaCritique]:
    """The meta-critiques of critique `index` by their numbers: m of them, or as many as fixed the
    majority.
    """
    listed = store.list(keys.meta_critiques(run_id, proof_id, index))
    return {int(keys.name_of(key)): get_record(store, key, MetaCritique) for key in listed}


def find_judgement(store: Store, run_id: str, proof_id: str, index: int) -> Judgement | None:
    """The judgement of critique `index`; None while it has none."""
    return find_record(store, keys.judgement(run_id, proof_id, index), Judgement)


def raw_of_proof(store: Store, proof: Proof) -> RawAnswer | None:
    """The generator's raw answer; None for a call without an answer."""
    return find_record(store, proof.raw_key, RawAnswer) if proof.raw_key else None
