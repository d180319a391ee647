"""Runs on given material: proofs that enter at the verifier, analyses that enter at the
meta-verifier.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from proofloop.cli.app import app
from proofloop.config.run_file import RunSpec
from proofloop.errors import ConfigError, Interrupted
from proofloop.method.domains.nano import NanoDomain
from proofloop.pipeline.embedded import EmbeddedPipeline
from proofloop.runs.answers import readability
from proofloop.runs.costs import costs
from proofloop.runs.create import create_run
from proofloop.runs.given import keep_portion
from proofloop.runs.planned import is_complete, planned_proofs
from proofloop.runs.progress import RunProgress
from proofloop.schema import keys
from proofloop.schema.events import ProofReviewed, ProofWritten
from proofloop.schema.given import GivenCase, GivenPortion
from proofloop.schema.records import Critique, Given, Judgement, Label, ModelRole, Proof
from proofloop.store import LocalStore, get_record
from proofloop.worker.engine_pool import Engines
from tests.builders import CountingEngine, evaluation, runspec, visible

pytestmark = pytest.mark.usefixtures("quiet_log")

PROOFS = [
    {"question": "Prove A.", "solution": "Simulated proof aa of quality 1.", "score": 1},
    {"problem": "Prove B.", "proof": "Simulated proof bb of quality 0.", "score": 0, "by": "Ada"},
    {"question": "Prove C.", "solution": "Simulated proof cc of quality 0.5.", "score": 0.5},
]
ANALYSES = [
    {
        **PROOFS[0],
        "analysis": evaluation("1", "Simulated analysis claims quality 1."),
        "quality": 1,
    },
    {
        **PROOFS[1],
        "analysis": evaluation("0", "Simulated analysis claims quality 0."),
        "quality": 0,
    },
    {**PROOFS[2], "analysis": "It is fine."},
]


def write_rows(folder: Path, rows: Sequence[dict[str, Any]], name: str = "rows.jsonl") -> Path:
    file = folder / name
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


def given_run(folder: Path, source: str = "given_proofs", **sections: Any) -> RunSpec:
    """The run of rows.jsonl in the folder."""
    return runspec(problems={source: "rows.jsonl"}, base=folder, **sections)


def material(*cases: GivenCase) -> GivenPortion:
    return GivenPortion(cases=cases)


class OneEngine(Engines):
    """All runs on one engine that is already open, so that a test can count."""

    def __init__(self, store: LocalStore, engine: CountingEngine) -> None:
        super().__init__(store, store.root / "cache")
        self._engine = engine

    def of(self, spec: RunSpec, role: ModelRole) -> CountingEngine:
        return self._engine


def drive(
    store: LocalStore,
    spec: RunSpec,
    engine: CountingEngine,
    *portions: GivenPortion,
    stopping: threading.Event | None = None,
) -> RunProgress:
    create_run(store, spec, resume=True, portions=portions)
    with EmbeddedPipeline(store, OneEngine(store, engine), spec, stopping=stopping) as pipeline:
        return pipeline.run()


def labels_of(store: LocalStore, spec: RunSpec) -> list[Label]:
    return [get_record(store, key, Label) for key in store.list(keys.labels(spec.name))]


def by_role(engine: CountingEngine) -> Counter[str]:
    return Counter(name.partition(":")[0] for name in engine.names())


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def engine() -> CountingEngine:
    return CountingEngine()


def test_given_proofs_get_all_critiques_and_keep_their_grade(
    tmp_path: Path, store: LocalStore, engine: CountingEngine
) -> None:
    write_rows(tmp_path, PROOFS)
    spec = given_run(tmp_path)
    progress = drive(store, spec, engine)
    assert (progress.planned, progress.labeled) == (3, 3)
    assert progress.outcomes == {"accepted": 1, "rejected": 2}
    found = [
        (label.proof_id, label.score, label.kind, label.by) for label in labels_of(store, spec)
    ]
    assert found == [
        ("c000000-000", 1.0, "graded", "expert"),
        ("c000001-000", 0.0, "graded", "Ada"),
        ("c000002-000", 0.5, "graded", "expert"),
    ]
    assert all(label.group == label.proof_id for label in labels_of(store, spec))
    assert by_role(engine)["generator"] == 0
    assert by_role(engine)["verifier"] == 3 * spec.labeling.n
    proof = get_record(store, keys.proof(spec.name, "c000001-000"), Proof)
    assert proof.given == Given(score=0.0, by="Ada", origin="rows.jsonl row 2")
    assert is_complete(store, spec)


def test_without_meta_critiques_no_critique_is_judged(
    tmp_path: Path, store: LocalStore, engine: CountingEngine
) -> None:
    write_rows(tmp_path, PROOFS)
    spec = given_run(tmp_path, labeling={"m": 0})
    drive(store, spec, engine)
    assert by_role(engine) == {"verifier": 3 * spec.labeling.n}
    judged = [
        get_record(store, key, Judgement)
        for key in store.list(keys.judgements(spec.name, "c000001-000"))
    ]
    assert [(each.confirmed, each.quality) for each in judged] == [(None, 1.0)] * spec.labeling.n


def test_a_given_proof_without_a_grade_is_labeled_by_the_rule(
    tmp_path: Path, store: LocalStore
) -> None:
    write_rows(tmp_path, [{**row, "score": None} for row in PROOFS])
    engine = CountingEngine(verifier_noise=0.0)
    spec = given_run(tmp_path)
    drive(store, spec, engine)
    found = [(label.score, label.kind, label.by) for label in labels_of(store, spec)]
    assert found == [
        (1.0, "accepted", "labeler"),
        (0.0, "rejected_upheld", "labeler"),
        (0.5, "rejected_upheld", "labeler"),
    ]
    assert by_role(engine)["verifier"] < 3 * spec.labeling.n  # critiques by need


def test_given_analyses_get_all_meta_critiques_whatever_they_say(
    tmp_path: Path, store: LocalStore, engine: CountingEngine
) -> None:
    write_rows(tmp_path, ANALYSES)
    spec = given_run(tmp_path, "given_analyses", labeling={"given_m": 5})
    progress = drive(store, spec, engine)
    assert by_role(engine) == {"meta_verifier": 15}
    assert progress.outcomes == {"accepted": 1, "rejected": 1, "undecided": 1}
    assert [label.score for label in labels_of(store, spec)] == [None, None, None]
    assert {label.kind for label in labels_of(store, spec)} == {"graded"}
    scores = [
        get_record(store, keys.critique(spec.name, f"c{c:06d}-000", 0), Critique).verdict.score
        for c in range(3)
    ]
    assert scores == [1.0, 0.0, None]  # the score that each analysis states


def test_what_was_given_costs_nothing_and_counts_as_no_answer(
    tmp_path: Path, store: LocalStore, engine: CountingEngine
) -> None:
    write_rows(tmp_path, ANALYSES)
    spec = given_run(tmp_path, "given_analyses")
    drive(store, spec, engine)
    spent = costs(store, spec.name)
    assert {role: spent.by_role[role].calls for role in spent.by_role} == {
        "generator": 0,
        "verifier": 0,
        "meta_verifier": 9,
    }
    assert readability(store, spec.name).seen == {"meta_verifier": 9}


def test_material_mixes_problems_proofs_and_analyses_and_grows_by_portions(
    store: LocalStore, engine: CountingEngine
) -> None:
    spec = runspec(problems={"material": True, "proofs_per_problem": 2})
    proof = GivenCase(question="Q1", solution="S1", given=Given(score=1.0, by="checker"))
    analysis = GivenCase(question="Q2", solution="S2", analysis="A2", meta_verifier_version="mv-7")
    first = material(GivenCase(question="Q0"), proof)
    drive(store, spec, engine, first)
    asked = len(engine.requests)
    assert planned_proofs(spec, store) == 3
    keep_portion(store, spec.name, 1, [analysis])
    progress = drive(store, spec, engine)
    assert (progress.planned, progress.labeled, progress.stored) == (4, 4, 3)
    new = engine.requests[asked:]
    assert [request.model for request in new] == ["mv-7"] * 3
    assert {label.group for label in labels_of(store, spec)} == {
        "c000000",
        "c000001-000",
        "c000002-000",
    }


def test_other_portions_of_the_same_number_are_refused(
    store: LocalStore, engine: CountingEngine
) -> None:
    spec = runspec(problems={"material": True})
    create_run(store, spec, resume=False, portions=[material(GivenCase(question="Q0"))])
    with pytest.raises(ConfigError, match=r"run 'r1' .* began with other rows(.|\n)*another name"):
        create_run(store, spec, resume=True, portions=[material(GivenCase(question="other"))])


def test_rows_may_be_added_to_the_file_and_not_changed(
    tmp_path: Path, store: LocalStore, engine: CountingEngine
) -> None:
    write_rows(tmp_path, PROOFS[:2])
    spec = given_run(tmp_path)
    drive(store, spec, engine)
    write_rows(tmp_path, PROOFS)
    progress = drive(store, spec, engine)
    assert (progress.labeled, progress.stored) == (3, 2)
    assert by_role(engine)["verifier"] == 3 * spec.labeling.n
    write_rows(tmp_path, PROOFS[:2])
    with pytest.raises(
        ConfigError, match="has 2 cases, but run 'r1' has 3: cases may only be added"
    ):
        create_run(store, spec, resume=True)
    write_rows(tmp_path, [PROOFS[0], {**PROOFS[1], "score": 1}, PROOFS[2]])
    with pytest.raises(ConfigError, match=r"differs from the file .* from rows\.jsonl row 2 on"):
        create_run(store, spec, resume=True)


def test_an_interrupted_run_asks_each_question_once(tmp_path: Path, store: LocalStore) -> None:
    write_rows(tmp_path, [{**PROOFS[0], "question": f"Prove {n}."} for n in range(40)])
    spec = given_run(tmp_path, flow={"max_waiting_proofs": 4})
    stopping = threading.Event()

    class Stops(CountingEngine):
        def submit(self, request: Any) -> Any:
            if len(self.requests) == 60:
                stopping.set()
            return super().submit(request)

    engine = Stops()
    with pytest.raises(Interrupted):
        drive(store, spec, engine, stopping=stopping)
    progress = drive(store, spec, engine)
    assert progress.labeled == 40
    critiques = [name for name in engine.names() if name.startswith("verifier:")]
    assert sorted(critiques) == sorted(set(critiques))
    assert len(critiques) == 40 * spec.labeling.n


def test_repeated_messages_change_nothing(
    tmp_path: Path, store: LocalStore, engine: CountingEngine
) -> None:
    write_rows(tmp_path, PROOFS)
    spec = given_run(tmp_path)
    drive(store, spec, engine)
    asked, labels = len(engine.requests), labels_of(store, spec)
    again = [
        ProofWritten(run_id=spec.name, proof_id="c000001-000", index=1, verifier_version="m-1"),
        ProofReviewed(run_id=spec.name, proof_id="c000001-000", index=0),
    ]
    with EmbeddedPipeline(store, OneEngine(store, engine), spec) as pipeline:
        assert pipeline.replay(again) == []
    assert len(engine.requests) == asked
    assert labels_of(store, spec) == labels


def test_a_checker_labels_proofs_and_no_critique_is_requested(
    store: LocalStore, engine: CountingEngine
) -> None:
    question = NanoDomain("nano").pose(0, split="test", seed=0).question
    spec = runspec(
        problems={"material": True, "checker": "nano", "proofs_per_problem": 3},
        labeling={"by": "checker"},
        prompts="nano",
    )
    drive(store, spec, engine, material(GivenCase(question=question)))
    assert by_role(engine) == {"generator": 3}
    checker = NanoDomain("nano").checker
    assert checker is not None
    for label in labels_of(store, spec):
        proof = get_record(store, keys.proof(spec.name, label.proof_id), Proof)
        finding = checker.check_proof(question, proof.solution)
        assert (label.kind, label.by) == ("graded", "checker")
        assert label.score == (finding.score if finding else None)


def test_without_meta_critiques_the_majority_labels_new_proofs(store: LocalStore) -> None:
    engine = CountingEngine(verifier_noise=0.0)
    spec = runspec(labeling={"m": 0, "self_m": 2})
    progress = drive(store, spec, engine)
    assert progress.labeled == 4
    assert by_role(engine)["verifier"] == 4 * spec.labeling.n
    for label in labels_of(store, spec):
        scores = {
            get_record(store, key, Critique).verdict.score
            for key in store.list(keys.critiques(spec.name, label.proof_id))
        }
        assert {label.score} == scores
        assert label.kind in ("accepted", "rejected_upheld")


def test_two_runs_with_the_same_seeds_ask_with_the_same_random_numbers(
    tmp_path: Path, store: LocalStore
) -> None:
    write_rows(tmp_path, PROOFS)
    seeds = []
    for name, more in (("before", {}), ("after", {"seed_as": "before"}), ("other", {})):
        engine = CountingEngine()
        spec = runspec(name, problems={"given_proofs": "rows.jsonl"}, base=tmp_path, **more)
        drive(store, spec, engine)
        seeds.append(
            sorted((request.id.rpartition(":")[0], request.seed) for request in engine.requests)
        )
    assert seeds[0] == seeds[1] != seeds[2]


GIVEN_TOML = """
[problems]
given_proofs = "rows.jsonl"
[engine]
kind = "simulated"
[models]
verifier = "m-1"
meta_verifier = "m-1"
[labeling]
n = 4
m = 3
k = 2
"""


def test_the_commands_know_given_proofs(tmp_path: Path) -> None:
    write_rows(tmp_path, PROOFS)
    (tmp_path / "graded.toml").write_text(GIVEN_TOML)

    def call(*words: str) -> str:
        said = CliRunner().invoke(app, [*words, "--store", str(tmp_path / "store")])
        assert said.exit_code == 0, said.output + said.stderr
        return said.stdout

    file = str(tmp_path / "graded.toml")
    findings = {each["what"]: each["found"] for each in json.loads(call("doctor", file, "--json"))}
    assert findings["run file"].startswith("graded: engine simulated, 3 proofs, n=4")
    assert "verifier" in findings and "generator" not in findings
    planned = json.loads(call("plan", file, "--json"))["run"]
    calls = {each["role"]: each["calls"]["high"] for each in planned["roles"]}
    assert calls == {"generator": 0, "verifier": 12, "meta_verifier": 36}
    assert call("run", file) == "graded: 3 proofs done: accepted 1, rejected 2\n"
    shown = json.loads(call("runs", "show", "graded", "--json"))
    assert (shown["state"], shown["problems"], shown["kinds"]) == (
        "complete",
        "rows.jsonl",
        {"graded": 3},
    )
    figures = {
        each["figure"]: each for each in json.loads(call("runs", "measure", "graded", "--json"))
    }
    assert figures["verifier_accuracy"]["cases"] == 12
    assert figures["pass_at_1"]["cases"] == 0
    shown_proof = call("proof", "graded", "c000001-000")
    assert shown_proof.startswith("c000001-000: given with the run\nproblem: c000001\n")
    assert shown_proof.endswith("--- Solution\nSimulated proof bb of quality 0.\n")
    call("runs", "report", "graded", "--out", str(tmp_path / "page"))
    seen = visible((tmp_path / "page" / "report.html").read_text("utf-8"))
    assert "3 of 3 proofs that were given or checked have their grade" in seen
    assert "given with the run, labeled by expert, from rows.jsonl row 3" in seen
