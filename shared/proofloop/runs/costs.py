"""The cost of a run, added up from its records in one pass: calls, tokens, engine seconds and
money.

Memory grows with the number of problems, never with proofs or texts. A call that was cancelled, or
whose answer another worker stored first, left no record and does not count.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

from proofloop.config.run_file import EnginePrices, Prices, RunSpec
from proofloop.errors import ConfigError
from proofloop.runs.answers import ROLE_OF_KIND
from proofloop.runs.labels import find_label
from proofloop.runs.spec import find_spec
from proofloop.schema import keys
from proofloop.schema.records import (
    MODEL_ROLES,
    NOT_SAMPLED,
    Label,
    ModelRole,
    Provenance,
    Record,
    Verdict,
)
from proofloop.store import Store, find_record, get_record

MILLION, HOUR_S = 1e6, 3600.0


@dataclass(frozen=True)
class Spent:
    """The cost of some calls, or the means over some problems; `money` is in the currency of the
    run's prices.
    """

    calls: float = 0
    prompt_tokens: float = 0
    completion_tokens: float = 0
    engine_seconds: float = 0.0
    money: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(*map(operator.add, self._values, other._values))

    def __sub__(self, other: Spent) -> Spent:
        return Spent(*map(operator.sub, self._values, other._values))

    def over(self, number: int) -> Spent | None:
        """The mean over that many; None over none."""
        return Spent(*(_mean(value, number) for value in self._values)) if number else None

    @property
    def _values(self) -> Iterable[float]:
        return vars(self).values()


ByRole = Mapping[ModelRole, Spent]


def summed(some: ByRole, others: ByRole) -> ByRole:
    """The sum of both, by role."""
    return {
        role: some.get(role, Spent()) + others.get(role, Spent()) for role in {**some, **others}
    }


def _mean(value: float, number: int) -> float:
    """The mean; that of counts is a whole number if possible."""
    return value // number if isinstance(value, int) and value % number == 0 else value / number


@dataclass(frozen=True)
class Costs:
    """A run's costs. A problem is solved when all n critiques of one of its proofs are valid and 1;
    it is accepted when one of them has a label of 1.

    `priced` is false if the run has no prices: money is then 0 because it is unknown.
    """

    by_role: Mapping[ModelRole, Spent]
    problems: int
    solved_problems: int
    accepted_problems: int
    proofs: int
    labeled_proofs: int
    priced: bool

    @property
    def total(self) -> Spent:
        return sum(self.by_role.values(), start=Spent())

    @property
    def per_problem(self) -> Spent | None:
        return self.total.over(self.problems)

    @property
    def per_solved_problem(self) -> Spent | None:
        """The whole cost over the number of solved problems."""
        return self.total.over(self.solved_problems)

    @property
    def per_accepted_problem(self) -> Spent | None:
        return self.total.over(self.accepted_problems)


@dataclass(frozen=True)
class Bill:
    """The records of one proof without its texts: its calls, the generator's own verdict, and its
    label.

    `judged`: the number of its analyses, its own included, that went to the meta-verifier.
    `is_written`: false while the proof is refined: the verdict and the first call are then those of
    its newest attempt.
    """

    proof_id: str
    problem_id: str
    verdict: Verdict
    calls: tuple[tuple[ModelRole, Provenance], ...]
    label: Label | None
    judged: int = 0
    is_written: bool = True

    @property
    def generator_version(self) -> str:
        """Empty for a given proof."""
        role, provenance = self.calls[0] if self.calls else ("verifier", NOT_SAMPLED)
        return provenance.model_version if role == "generator" else ""


class _Call(Record):
    """The cost of a critique or a meta-critique, without decoding its text."""

    provenance: Provenance


class _Proof(Record):
    id: str
    problem_id: str
    verdict: Verdict
    provenance: Provenance


def costs(store: Store, run_id: str, prices: Prices | None = None) -> Costs:
    """The cost of the run so far, at its own prices unless others are given. Raises ConfigError
    without such a run.
    """
    tally = CostTally(prices or spec_of(store, run_id).prices)
    for bill in bills(store, run_id):
        tally.add(bill)
    return tally.costs


def spec_of(store: Store, run_id: str) -> RunSpec:
    """The spec of a run. Raises ConfigError if there is no such run."""
    spec = find_spec(store, run_id)
    if spec is None:
        raise ConfigError(f"there is no run {run_id!r} in the store", "see `proofloop runs list`")
    return spec


def bills(store: Store, run_id: str) -> Iterator[Bill]:
    """One bill a proof with an answer, in the order of the store, from a single listing."""
    root = keys.proofs(run_id)
    for proof_id, found in groupby(store.list(root), key=lambda key: keys.first_below(root, key)):
        bill = _bill(store, run_id, proof_id, found)
        if bill is not None:
            yield bill


def bill_of(store: Store, run_id: str, proof_id: str) -> Bill | None:
    """The bill of one proof; None if it has no answer."""
    return _bill(store, run_id, proof_id, store.list(f"{keys.proofs(run_id)}{proof_id}/"))


def _bill(store: Store, run_id: str, proof_id: str, found: Iterable[str]) -> Bill | None:
    """None for a proof without an answer. `found` are the keys below it, sorted; its tokens are
    never read.
    """
    answers = [(key, at.name) for key in found if (at := keys.parse_answer(key))]
    attempts = [key for key, answer in answers if answer.kind == "attempt"]
    proof = find_record(store, keys.proof(run_id, proof_id), _Proof)
    if is_written := proof is not None:
        label = find_label(store, run_id, proof_id)
        counted = {keys.proof(run_id, proof_id)}
    elif attempts:
        proof = get_record(store, attempts[-1], _Proof)
        label = None
        counted = {attempts[-1]}
    else:
        return None
    calls: list[tuple[ModelRole, Provenance]] = [("generator", proof.provenance)]
    for key, answer in answers:
        if key not in counted:
            provenance = get_record(store, key, _Call).provenance
            calls.append((ROLE_OF_KIND[answer.kind], provenance))
    calls = [call for call in calls if call[1].is_sampled]
    judged = len({answer.index for _, answer in answers if answer.kind == "meta"})
    return Bill(proof_id, proof.problem_id, proof.verdict, tuple(calls), label, judged, is_written)


class CostTally:
    """Adds bills up."""

    def __init__(self, prices: Prices) -> None:
        self._prices = prices
        self._by_role: dict[ModelRole, Spent] = {role: Spent() for role in MODEL_ROLES}
        self._seen: set[str] = set()
        self._solved: set[str] = set()
        self._accepted: set[str] = set()
        self._proofs = self._labeled = 0

    def add(self, bill: Bill) -> None:
        for role, provenance in bill.calls:
            self._by_role[role] += spent(provenance, self._prices.of(role))
        self._seen.add(bill.problem_id)
        self._proofs += bill.is_written
        if bill.label is None:
            return
        self._labeled += 1
        if bill.label.solved:
            self._solved.add(bill.problem_id)
        if bill.label.score == 1.0:
            self._accepted.add(bill.problem_id)

    @property
    def costs(self) -> Costs:
        return Costs(
            by_role=dict(self._by_role),
            problems=len(self._seen),
            solved_problems=len(self._solved),
            accepted_problems=len(self._accepted),
            proofs=self._proofs,
            labeled_proofs=self._labeled,
            priced=self._prices != Prices(),
        )


def spent(provenance: Provenance, prices: EnginePrices) -> Spent:
    """The cost of one call; a failed one counts as a call."""
    used = (provenance.prompt_tokens, provenance.completion_tokens, provenance.engine_seconds)
    return Spent(1, *used, money(prices, *used))


def money_of(prices: Prices, spent: ByRole) -> float:
    """The price of these costs, of all roles together."""
    return sum(
        money(prices.of(role), of.prompt_tokens, of.completion_tokens, of.engine_seconds)
        for role, of in spent.items()
    )


def money(
    prices: EnginePrices, prompt_tokens: float, completion_tokens: float, engine_seconds: float
) -> float:
    """The price of these amounts."""
    return (
        prompt_tokens / MILLION * prices.per_million_prompt_tokens
        + completion_tokens / MILLION * prices.per_million_completion_tokens
        + engine_seconds / HOUR_S * prices.per_engine_hour
    )
