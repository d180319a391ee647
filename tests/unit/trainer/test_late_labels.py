"""Labels that arrive after a run's training: a person grades, or the broker delivers again."""

from __future__ import annotations

from pathlib import Path

from proofloop.schema import keys
from proofloop.schema.events import ProofLabeled
from proofloop.schema.records import TrainingBatch
from proofloop.store import LocalStore, put_record
from proofloop.worker.tools import Tools
from proofloop_trainer.train import RUNS_KEPT, Trainer
from tests.builders import RUN, label, publish_versions, runspec


def no_engine(*_: object) -> None:
    raise AssertionError("a trainer asks no model")


def test_a_late_label_repeats_no_step_though_older_versions_were_deleted(tmp_path: Path) -> None:
    """A curriculum keeps only the last version of a finished stage."""
    store = LocalStore(tmp_path / "store")
    spec = runspec(
        problems={"material": True},
        labeling={"stop_early": False},
        training={"problems": 1, "verifier": {"steps": 2}},
    )
    put_record(store, keys.run_spec(RUN), spec)
    for step in range(2):
        taken = TrainingBatch(run_id=RUN, role="verifier", step=step, samples=(), problems=("p0",))
        put_record(store, keys.batch(RUN, "verifier", step), taken)
    last = keys.model(RUN, "verifier", 2)
    publish_versions(store, tmp_path / "model", last)
    put_record(store, keys.label(RUN, label().proof_id), label())
    announced = list(Trainer().train(ProofLabeled.of(label()), Tools(store, no_engine)))
    assert [event.version for event in announced] == [last]


def test_a_trainer_keeps_few_runs_and_reads_another_again(tmp_path: Path) -> None:
    store, trainer = LocalStore(tmp_path), Trainer()
    tools = Tools(store, no_engine)
    labels = [label(run_id=f"r{number}") for number in range(RUNS_KEPT + 2)]
    for each in [*labels, labels[0]]:
        spec = runspec(
            name=each.run_id, labeling={"stop_early": False}, training={"verifier": {"steps": 2}}
        )
        store.put_if_absent(keys.run_spec(each.run_id), spec.model_dump_json().encode())
        store.put_if_absent(keys.label(each.run_id, each.proof_id), each.model_dump_json().encode())
        assert list(trainer.train(ProofLabeled.of(each), tools)) == []
    assert [*trainer._runs] == [*(each.run_id for each in labels[3:]), "r0"]
