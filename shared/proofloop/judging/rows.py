"""One row for each judged proof: what people said, what the judges said, and what it cost.

The rows are all that the figures are computed from. `proofloop judge --rows FILE` exports them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Literal

from proofloop.config.run_file import Prices
from proofloop.errors import StoreError
from proofloop.judging.runs import graded_proofs
from proofloop.report import write_whole
from proofloop.runs.costs import Bill, Spent, bill_of, spent
from proofloop.runs.labels import find_label
from proofloop.schema import keys
from proofloop.schema.given import PeoplesGrade
from proofloop.schema.records import Judgement, LabelOutcome, Record, Score, Verdict
from proofloop.store import Store, records_below

Outcome = Literal["valid", "malformed", "truncated", "engine_failed"]


class JudgedCritique(Record):
    """One critique: its score, None with `outcome` malformed, truncated or engine_failed.

    `share`: the points over full marks, if the verifier gives points. `confirmed`: whether the
    meta-verifier confirms the issues; None without its verdict, or with too few readable answers.
    """

    score: Score | None
    outcome: Outcome
    confirmed: bool | None
    share: float | None = None


class Cost(Record):
    """The cost of a proof's critiques, or of its meta-critiques."""

    calls: int = 0
    tokens: int = 0
    seconds: float = 0.0
    money: float = 0.0


class JudgedProof(Record):
    """A row. `grade`: people's grade as a share of full marks. `truth`: the same as a score.

    `score`, `outcome` and `solved` are those of the run's own label.
    """

    proof: str
    origin: str
    problem: str
    source: str
    attack: str
    grade: float
    truth: Score
    score: Score | None
    outcome: LabelOutcome
    solved: bool
    critiques: tuple[JudgedCritique, ...]
    verifying: Cost = Cost()
    meta_verifying: Cost = Cost()

    @cached_property
    def judgements(self) -> tuple[Judgement, ...]:
        """The critiques as the acceptance rules take them."""
        return tuple(_judgement(index, each) for index, each in enumerate(self.critiques))

    @property
    def is_right(self) -> bool:
        """Whether a judge should accept the proof."""
        return self.truth == 1.0


def _judgement(index: int, critique: JudgedCritique) -> Judgement:
    verdict = Verdict(outcome=critique.outcome, score=critique.score, share=critique.share)
    return Judgement(
        proof_id="", index=index, verdict=verdict, confirmed=critique.confirmed, quality=0.0
    )


AT_ONCE = 20
"""Rows that are read together: a store on the network lists all labels each time."""


class RowCollector:
    """Reads each proof's row once it has its label, and calls `on_row` with it. If it is called
    while the run works, little is left to do at the end. It holds no text.
    """

    def __init__(
        self,
        store: Store,
        run_id: str,
        prices: Prices,
        on_row: Callable[[JudgedProof], None] = lambda row: None,
    ) -> None:
        self._store, self._run, self._prices = store, run_id, prices
        self._on_row = on_row
        self._graded: Mapping[str, tuple[str, PeoplesGrade]] = {}
        self._rows: dict[str, JudgedProof] = {}

    def look_ahead(self, labeled: int) -> None:
        """Read rows while the run works, once enough proofs are `labeled`. An unavailable store is
        left to the run: the rows are read later.
        """
        if labeled >= len(self._rows) + AT_ONCE:
            with suppress(StoreError):
                self._look()

    def _look(self) -> None:
        """Read the rows of newly labeled proofs."""
        if not self._graded:
            self._graded = {
                proof: (origin, graded)
                for proof, origin, graded in graded_proofs(self._store, self._run)
            }
        for key in self._store.list(keys.labels(self._run)):
            proof = keys.name_of(key)
            if proof in self._graded and proof not in self._rows:
                self._rows[proof] = self._read(proof)
                self._on_row(self._rows[proof])

    def rows(self) -> tuple[JudgedProof, ...]:
        """All rows by now, in the order of the file."""
        self._look()
        return tuple(self._rows[proof] for proof in self._graded if proof in self._rows)

    def _read(self, proof: str) -> JudgedProof:
        origin, graded = self._graded[proof]
        label = find_label(self._store, self._run, proof)
        assert label is not None
        bill = bill_of(self._store, self._run, proof)
        return JudgedProof(
            proof=proof,
            origin=origin,
            problem=graded.problem,
            source=graded.source,
            attack=graded.attack,
            grade=graded.share,
            truth=graded.score,
            score=label.score,
            outcome=label.outcome,
            solved=label.solved,
            critiques=tuple(self._critiques(proof)),
            verifying=self._cost(bill, "verifier"),
            meta_verifying=self._cost(bill, "meta_verifier"),
        )

    def _critiques(self, proof: str) -> Iterator[JudgedCritique]:
        for found in records_below(self._store, keys.judgements(self._run, proof), Judgement):
            if found.index >= 0:
                verdict = found.verdict
                yield JudgedCritique(
                    score=verdict.score,
                    outcome=verdict.outcome,
                    confirmed=found.confirmed,
                    share=verdict.share,
                )

    def _cost(self, bill: Bill | None, role: str) -> Cost:
        calls = [call for name, call in bill.calls if name == role] if bill else []
        total = sum(
            (spent(call, self._prices.of(role)) for call in calls),  # type: ignore[arg-type]
            start=Spent(),
        )
        return Cost(
            calls=len(calls),
            tokens=int(total.prompt_tokens + total.completion_tokens),
            seconds=total.engine_seconds,
            money=total.money,
        )


def write_rows(rows: tuple[JudgedProof, ...], file: Path) -> None:
    """Write the rows as JSON lines, whole or not at all."""
    write_whole("".join(f"{row.model_dump_json()}\n" for row in rows).encode(), file)
