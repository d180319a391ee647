"""The rows of judged proofs, read while the run works."""

from __future__ import annotations

from pathlib import Path

import pytest

from proofloop.config.run_file import Prices
from proofloop.errors import StoreError
from proofloop.judging.rows import AT_ONCE, JudgedProof, RowCollector, write_rows
from proofloop.runs.given import keep_portion
from proofloop.schema import keys
from proofloop.schema.given import GivenCase, PeoplesGrade
from proofloop.schema.records import Given
from proofloop.store import LocalStore, put_record
from tests.builders import PROVENANCE, RUN, critique, judgement, label, proof, valid
from tests.unit.judging.rows import judged

NAME = "c000000-000"
PRICES = Prices(per_million_completion_tokens=1e6)


class UnavailableStore(LocalStore):
    def list(self, prefix: str):  # type: ignore[no-untyped-def]
        raise StoreError("away")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A graded proof with one critique that was judged, and its label."""
    store = LocalStore(tmp_path)
    graded = PeoplesGrade(share=6 / 7, score=0.5, problem="A-1", source="class")
    case = GivenCase(question="Q", solution="S", given=Given(origin="row 1"), graded=graded)
    keep_portion(store, RUN, 0, [case])
    ids = {"proof_id": NAME}
    put_record(store, keys.proof(RUN, NAME), proof(id=NAME, given=Given(), provenance=PROVENANCE))
    written = critique(0, valid(0.0)).model_copy(update=ids)
    put_record(store, keys.critique(RUN, NAME, 0), written)
    found = judgement(0, 0.0, confirmed=True).model_copy(update=ids)
    put_record(store, keys.judgement(RUN, NAME, 0), found)
    put_record(store, keys.label(RUN, NAME), label(0.0, **ids))
    return store


def test_a_row_says_what_people_and_judges_said_and_what_it_cost(store: LocalStore) -> None:
    (row,) = RowCollector(store, RUN, PRICES).rows()
    assert (row.proof, row.origin, row.problem, row.source) == (NAME, "row 1", "A-1", "class")
    assert (row.grade, row.truth, row.score) == (6 / 7, 0.5, 0.0)
    (found,) = row.critiques
    assert (found.score, found.outcome, found.confirmed) == (0.0, "valid", True)
    assert (row.verifying.calls, row.verifying.tokens, row.verifying.money) == (1, 30, 20.0)
    assert row.meta_verifying.calls == 0


def test_a_proof_without_a_label_has_no_row_yet(store: LocalStore) -> None:
    case = GivenCase(question="R", graded=PeoplesGrade(share=1, score=1.0, problem="B"))
    keep_portion(store, RUN, 1, [case])
    assert len(RowCollector(store, RUN, PRICES).rows()) == 1


def test_looking_ahead_waits_for_enough_labels(store: LocalStore) -> None:
    collector = RowCollector(store, RUN, PRICES)
    store.delete_prefix(keys.judgements(RUN, NAME))
    collector.look_ahead(AT_ONCE - 1)
    put_record(store, keys.judgement(RUN, NAME, 0), judgement(0))
    collector.look_ahead(AT_ONCE)
    store.delete_prefix(keys.judgements(RUN, NAME))
    assert [len(row.critiques) for row in collector.rows()] == [1]


def test_an_unavailable_store_ends_nothing_while_the_run_works(tmp_path: Path) -> None:
    RowCollector(UnavailableStore(tmp_path), RUN, PRICES).look_ahead(AT_ONCE)


def test_rows_are_written_as_json_lines(tmp_path: Path) -> None:
    rows = (judged(1.0, [1.0, None]), judged(0.0, [0.5]))
    write_rows(rows, tmp_path / "new" / "rows.jsonl")
    lines = (tmp_path / "new" / "rows.jsonl").read_text().splitlines()
    assert tuple(map(JudgedProof.model_validate_json, lines)) == rows
