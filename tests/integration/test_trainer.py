"""The trainer on a real store and the shipped nano base: what it publishes, and what it survives."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from proofloop import keys
from proofloop.domains.nano import NanoDomain
from proofloop.engine.pool import Engines
from proofloop.errors import ConfigError, CorruptObject
from proofloop.messages import ModelPublished, ProblemPosed, ProofLabeled
from proofloop.models import published_versions, served_log, verify_version
from proofloop.records import Critique, Label, Proof, TrainingBatch, TrainingStep, Verdict
from proofloop.runspec import RunSpec
from proofloop.runtime import Tools
from proofloop.store import LocalStore, get_record, put_record
from proofloop.walk import LocalWalk, Progress, check_training, create_run, planned, planned_proofs
from tests.builders import RUN, runspec

pytest.importorskip("proofloop_trainer.train", reason="proofloop-trainer is not installed")

from proofloop_trainer.checkpoint import OPTIMIZER
from proofloop_trainer.nano import base_folder
from proofloop_trainer.train import Trainer

pytestmark = pytest.mark.usefixtures("quiet_log")

ROLES = ("generator", "verifier")
TRAINED = ("batches", "steps", "checkpoints", "models", "served")
"""What the trainer and the roles that adopt its versions leave in a run's folder."""


def training(generator: int, verifier: int, **fields: Any) -> dict[str, Any]:
    settings = {"epochs": 1, "learning_rate": 1e-3}
    steps = {"generator": generator, "verifier": verifier}
    roles = {role: {"steps": count, "settings": settings} for role, count in steps.items()}
    return {"problems": 2, "ahead": 1.0, **roles, **fields}


def nano_spec(**sections: Any) -> RunSpec:
    answer = {"max_tokens": 96}
    fields: dict[str, Any] = {
        "prompts": "nano",
        "problems": {"domain": "nano", "count": 4, "proofs_per_problem": 4},
        "engine": {"kind": "local"},
        "models": dict.fromkeys(("generator", "verifier", "meta_verifier"), str(base_folder())),
        "sampling": dict.fromkeys(("generator", "verifier", "meta_verifier"), answer),
        "labeling": {"n": 3, "m": 1, "k": 1, "stop_early": False},
        "training": training(2, 1),
        "flow": {"generator": 16, "verifier": 32, "meta_verifier": 32},
    }
    return runspec(**{**fields, **sections})


class Walked(NamedTuple):
    """A finished run with training, and a proof that was asked for after it."""

    store: LocalStore
    spec: RunSpec
    progress: Progress
    late: str


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Walked:
    store, spec, late = LocalStore(tmp_path_factory.mktemp("walked")), nano_spec(), "late-000"
    create_run(store, spec, resume=False)
    problem = NanoDomain().pose(99, split="train", seed=0)
    put_record(store, keys.problem(RUN, problem.id), problem)
    engines = Engines(store, store.root / "cache")
    with LocalWalk(store, engines, spec) as walk:
        progress = walk.run(planned_proofs(spec))
        time.sleep(0.6)  # longer than a worker may go on using the version it knows
        walk.replay([ProblemPosed(run_id=RUN, problem_id=problem.id, proof_id=late, group=problem.id)])
    engines.close()
    return Walked(store, spec, progress, late)


@pytest.fixture
def labelled(walked: Walked, tmp_path: Path) -> LocalStore:
    """The labelled proofs of that run, before any training."""
    folder = tmp_path / "store"
    run = folder / keys.run(RUN)
    left_out = shutil.ignore_patterns(*TRAINED, "late-000*")
    shutil.copytree(walked.store.root / keys.run(RUN), run, ignore=left_out)
    return LocalStore(folder)


def batches(store: LocalStore, role: str) -> list[TrainingBatch]:
    return [get_record(store, key, TrainingBatch) for key in store.list(keys.batches(RUN, role))]


def steps(store: LocalStore, role: str) -> list[TrainingStep]:
    return [get_record(store, key, TrainingStep) for key in store.list(keys.steps(RUN, role))]


# -- a run with training, from end to end ------------------------------------------------------------------------------


def test_versions_are_published_whole_and_put_in_service(walked: Walked) -> None:
    expected = {"generator": 2, "verifier": 1}
    assert walked.progress.steps == expected
    for role, count in expected.items():
        versions = [keys.model(RUN, role, step) for step in range(1, count + 1)]
        assert published_versions(walked.store, RUN, role) == versions  # type: ignore[arg-type]
        assert [line.version for line in served_log(walked.store, RUN, role)] == versions  # type: ignore[arg-type]
        for version in versions:
            verify_version(walked.store, version)
            names = {key.rpartition("/")[2] for key in walked.store.list(f"{version}/")}
            assert {"config.json", "model.safetensors", "manifest.json"} <= names
            assert OPTIMIZER not in names
    assert published_versions(walked.store, RUN, "meta_verifier") == []


def test_only_the_last_checkpoint_of_a_role_is_kept(walked: Walked) -> None:
    for role, count in (("generator", 2), ("verifier", 1)):
        kept = {key.rpartition("/")[0] for key in walked.store.list(keys.checkpoints(RUN, role))}
        assert kept == {keys.checkpoint(RUN, role, count)}
        verify_version(walked.store, keys.checkpoint(RUN, role, count))


def test_a_role_uses_each_problem_in_one_batch(walked: Walked) -> None:
    problems = {event.problem_id for event in planned(walked.spec, walked.store)}
    for role, count in (("generator", 2), ("verifier", 1)):
        found = batches(walked.store, role)
        used = [problem for batch in found for problem in batch.problems]
        assert [(batch.role, batch.step, len(batch.problems)) for batch in found] == [(role, n, 2) for n in range(count)]
        assert len(used) == len(set(used)) == 2 * count
        assert set(used) <= problems
        for sample in (sample for batch in found for sample in batch.samples):
            assert any(problem in sample.key for problem in used)
            assert 0.0 <= sample.reward <= 1.0


def test_a_step_is_recorded_with_what_explains_it(walked: Walked) -> None:
    for role, count in (("generator", 2), ("verifier", 1)):
        found = steps(walked.store, role)
        assert [step.version for step in found] == [keys.model(RUN, role, n) for n in range(1, count + 1)]
        for step, batch in zip(found, batches(walked.store, role), strict=True):
            assert step.sampled_by == tuple(sorted({sample.model_version for sample in batch.samples}))
            assert step.reward_parts == batch.reward_parts
            assert "format" in step.reward_parts
            assert step.figures["mean_reward"] == batch.mean_reward
            assert {"loss", "kl", "entropy", "grad_norm", "seconds"} <= set(step.figures)
    assert steps(walked.store, "generator")[0].sampled_by == (str(base_folder()),)


def test_what_is_asked_for_after_a_step_is_answered_by_the_new_version(walked: Walked) -> None:
    proof = get_record(walked.store, keys.proof(RUN, walked.late), Proof)
    assert proof.provenance.model_version == keys.model(RUN, "generator", 2)
    assert proof.verifier_version == keys.model(RUN, "verifier", 1)
    critiques = [
        get_record(walked.store, key, Critique) for key in walked.store.list(keys.critiques(RUN, walked.late))
    ]
    assert {critique.provenance.model_version for critique in critiques} <= {keys.model(RUN, "verifier", 1)}
    assert bool(critiques) == (proof.verdict.score is not None)


def test_no_proof_is_posed_before_the_trainer_may_have_used_those_before(walked: Walked) -> None:
    """With ahead = 1 the second pair of problems waits for the first step of both roles."""
    order = list(dict.fromkeys(event.problem_id for event in planned(walked.spec, walked.store)))
    first = max(
        walked.store.path(f"{keys.model(RUN, role, 1)}/manifest.json").stat().st_mtime_ns for role in ROLES
    )
    written = [walked.store.path(keys.proof(RUN, f"{problem}-000")).stat().st_mtime_ns for problem in order]
    assert [moment < first for moment in written] == [True, True, False, False]


# -- the handler alone, on labels that are there -----------------------------------------------------------------------


class Handler:
    """A trainer over a store; `deliver` gives it the labels as the bus does."""

    def __init__(self, store: LocalStore, spec: RunSpec) -> None:
        if not store.exists(keys.run_spec(RUN)):
            create_run(store, spec, resume=False)
        self.store, self.spec, self._trainer = store, spec, Trainer()
        self._tools = Tools(store, lambda _: pytest.fail("the trainer asks no engine"))

    def labels(self) -> Iterator[Label]:
        for event in planned(self.spec, self.store):
            yield get_record(self.store, keys.label(RUN, event.proof_id), Label)

    def deliver(self, labels: Iterator[Label] | list[Label] | None = None) -> list[tuple[str, int]]:
        """What was published: the role and the step."""
        found: list[tuple[str, int]] = []
        for label in labels if labels is not None else self.labels():
            events = list(self._trainer.train(ProofLabeled.of(label), self._tools))
            assert all(isinstance(event, ModelPublished) for event in events)
            found += [(event.role, int(event.version[-6:])) for event in events if isinstance(event, ModelPublished)]
        return found


def learned(store: LocalStore) -> dict[str, str]:
    """The digest of every file of every model version, from the manifests."""
    found = {}
    for role in ROLES:
        for version in published_versions(store, RUN, role):  # type: ignore[arg-type]
            manifest = json.loads(store.get(f"{version}/manifest.json"))
            found.update({f"{version}/{entry['name']}": entry["sha256"] for entry in manifest["files"]})
    return found


def figures(store: LocalStore) -> list[dict[str, float]]:
    """The figures of all steps, without the time they took."""
    return [
        {name: value for name, value in step.figures.items() if name != "seconds"}
        for role in ROLES
        for step in steps(store, role)
    ]


def test_labels_that_are_delivered_again_train_nothing_again(labelled: LocalStore) -> None:
    handler = Handler(labelled, nano_spec(training=training(1, 0)))
    labels = list(handler.labels())
    assert handler.deliver(labels[:8]) == [("generator", 1)]
    before, batch = learned(labelled), batches(labelled, "generator")
    assert handler.deliver(labels[:7]) == []
    assert handler.deliver(labels[7:8]) == [("generator", 1)]  # it says again what it said before
    assert handler.deliver(labels) == [("generator", 1)]
    assert (learned(labelled), batches(labelled, "generator")) == (before, batch)
    assert len(batch) == len(steps(labelled, "generator")) == 1


def test_a_problem_that_was_used_is_not_used_by_a_new_trainer(labelled: LocalStore) -> None:
    first = Handler(labelled, nano_spec(training=training(2, 0)))
    labels = list(first.labels())
    assert first.deliver(labels[:8]) == [("generator", 1)]
    again = Handler(labelled, first.spec)
    assert again.deliver(labels[:12]) == [("generator", 1)]  # announced, in case nobody heard; no step
    assert again.deliver(labels[12:]) == [("generator", 2)]
    problems = [problem for batch in batches(labelled, "generator") for problem in batch.problems]
    assert len(problems) == len(set(problems)) == 4


def test_a_role_s_training_begins_when_the_other_has_taken_its_steps(labelled: LocalStore) -> None:
    settings = {"epochs": 1}
    late = training(1, 2, problems=1, generator={"steps": 1, "begin": 2, "settings": settings})
    handler = Handler(labelled, nano_spec(training=late))
    assert handler.deliver() == [("verifier", 1), ("verifier", 2), ("generator", 1)]
    order = list(dict.fromkeys(label.group for label in handler.labels()))
    assert [batch.problems for batch in batches(labelled, "verifier")] == [(order[0],), (order[1],)]
    assert [batch.problems for batch in batches(labelled, "generator")] == [(order[2],)]


class Killed(BaseException):
    """The process ends here: nobody catches this."""


class DyingStore(LocalStore):
    """Ends its process just before it writes, or deletes, the n-th object whose key holds `part`."""

    def __init__(self, root: Path, part: str) -> None:
        super().__init__(root)
        self.part = part

    def put_if_absent(self, key: str, data: bytes, *, durable: bool = False) -> bool:
        self._die(key)
        return super().put_if_absent(key, data, durable=durable)

    def delete_prefix(self, prefix: str) -> int:
        self._die(f"delete {prefix}")
        return super().delete_prefix(prefix)

    def _die(self, what: str) -> None:
        if self.part in what:
            raise Killed(what)


@pytest.fixture(scope="module")
def undisturbed(walked: Walked, tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    """Two steps of the generator that nothing interrupts."""
    folder = tmp_path_factory.mktemp("undisturbed")
    left_out = shutil.ignore_patterns(*TRAINED, "late-000*")
    shutil.copytree(walked.store.root / keys.run(RUN), folder / keys.run(RUN), ignore=left_out)
    store = LocalStore(folder)
    assert Handler(store, nano_spec(training=training(2, 0))).deliver() == [("generator", 1), ("generator", 2)]
    return store


@pytest.mark.parametrize(
    "moment",
    [
        keys.batch(RUN, "generator", 1),
        keys.step(RUN, "generator", 2),
        f"{keys.checkpoint(RUN, 'generator', 2)}/model.safetensors",
        f"{keys.checkpoint(RUN, 'generator', 2)}/manifest.json",
        f"{keys.model(RUN, 'generator', 2)}/model.safetensors",
        f"{keys.model(RUN, 'generator', 2)}/manifest.json",
        f"delete {keys.checkpoint(RUN, 'generator', 1)}/",
    ],
)
def test_a_trainer_killed_at_any_write_of_a_step_takes_the_same_step_again(
    labelled: LocalStore, undisturbed: LocalStore, moment: str
) -> None:
    spec = nano_spec(training=training(2, 0))
    with pytest.raises(Killed):
        Handler(DyingStore(labelled.root, moment), spec).deliver()
    assert [version for version in published_versions(labelled, RUN, "generator")] in (
        [keys.model(RUN, "generator", 1)],
        [keys.model(RUN, "generator", step) for step in (1, 2)],  # killed after it was whole and before it was said
    )
    assert ("generator", 2) in Handler(labelled, spec).deliver()
    assert batches(labelled, "generator") == batches(undisturbed, "generator")
    assert figures(labelled) == figures(undisturbed)
    assert learned(labelled) == learned(undisturbed)
    verify_version(labelled, keys.checkpoint(RUN, "generator", 2))


def test_a_version_whose_maker_was_killed_before_it_could_say_so_is_announced(labelled: LocalStore) -> None:
    handler = Handler(labelled, nano_spec(training=training(1, 0)))
    handler.deliver()
    labels = list(handler.labels())
    assert Handler(labelled, handler.spec).deliver(labels[:2]) == [("generator", 1)]


def test_a_damaged_checkpoint_is_named_before_anything_is_done(labelled: LocalStore) -> None:
    spec = nano_spec(training=training(2, 0))
    handler = Handler(labelled, spec)
    labels = list(handler.labels())
    handler.deliver(labels[:8])
    check_training(labelled, spec)
    checkpoint = keys.checkpoint(RUN, "generator", 1)
    file = labelled.path(f"{checkpoint}/{OPTIMIZER}")
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    before = sorted(labelled.list(keys.run(RUN)))
    with pytest.raises(CorruptObject, match=rf"{checkpoint}/{OPTIMIZER} has digest .*, its manifest says"):
        check_training(labelled, spec)
    assert sorted(labelled.list(keys.run(RUN))) == before
    with pytest.raises(CorruptObject, match=rf"{OPTIMIZER} has changed: expected \d+ bytes, sha256"):
        Handler(labelled, spec).deliver(labels)
    assert published_versions(labelled, RUN, "generator") == [keys.model(RUN, "generator", 1)]
    file.unlink()
    with pytest.raises(CorruptObject, match=f"{OPTIMIZER} is missing"):
        check_training(labelled, spec)


def test_a_run_with_a_damaged_checkpoint_is_not_taken_up(labelled: LocalStore) -> None:
    spec = nano_spec(training=training(2, 0))
    handler = Handler(labelled, spec)
    handler.deliver(list(handler.labels())[:8])
    labelled.path(f"{keys.checkpoint(RUN, 'generator', 1)}/manifest.json").write_text("{")
    engines = Engines(labelled, labelled.root / "cache")
    with pytest.raises(CorruptObject, match=r"manifest\.json cannot be read"), LocalWalk(labelled, engines, spec) as walk:
        walk.run(planned_proofs(spec))
    engines.close()


def test_a_setting_that_grpo_does_not_know_is_named_with_its_place(labelled: LocalStore) -> None:
    wrong = {"steps": 1, "settings": {"epohcs": 2}}
    handler = Handler(labelled, nano_spec(training={"problems": 2, "generator": wrong}))
    with pytest.raises(ConfigError, match=r"\[training\.generator\.settings\] epohcs = 2") as caught:
        handler.deliver()
    assert "known: " in caught.value.hint and "epochs" in caught.value.hint
    assert batches(labelled, "generator") == []


def relabel(store: LocalStore, **fields: Any) -> None:
    """Give every proof of the run the same label."""
    for key in list(store.list(keys.labels(RUN))):
        old = get_record(store, key, Label)
        store.path(key).write_text(old.model_copy(update=fields).model_dump_json())


def test_problems_whose_proofs_all_earned_the_same_make_a_step_that_changes_nothing(labelled: LocalStore) -> None:
    relabel(labelled, score=0.0, outcome="label", kind="rejected_upheld", self_quality=0.0)
    handler = Handler(labelled, nano_spec(training=training(1, 0)))
    assert handler.deliver() == [("generator", 1)]
    (step,) = steps(labelled, "generator")
    assert step.figures["updates"] == 0
    assert labelled.get(f"{step.version}/model.safetensors") == (base_folder() / "model.safetensors").read_bytes()


def test_problems_without_a_single_group_are_passed_over(labelled: LocalStore) -> None:
    labels = list(Handler(labelled, nano_spec(training=training(1, 0))).labels())
    for label in labels[:8]:
        undecided = label.model_copy(update={"score": None, "outcome": "undecided", "kind": "undecided"})
        labelled.path(keys.label(RUN, label.proof_id)).write_text(undecided.model_dump_json())
    handler = Handler(labelled, nano_spec(training=training(1, 0)))
    assert handler.deliver() == [("generator", 1)]
    (batch,) = batches(labelled, "generator")
    assert set(batch.problems) == {label.group for label in labels[8:]}


def test_what_a_wrong_format_earned_is_in_the_mean_though_its_group_is_silent(walked: Walked) -> None:
    """A batch's mean is over all samples of its problems, not over those that train."""
    batch = batches(walked.store, "generator")[0]
    rewards = []
    for problem in batch.problems:
        for number in range(walked.spec.problems.proofs_per_problem):
            label = get_record(walked.store, keys.label(RUN, f"{problem}-{number:03d}"), Label)
            verdict: Verdict = get_record(walked.store, keys.proof(RUN, label.proof_id), Proof).verdict
            if label.outcome == "undecided":
                continue
            if verdict.score is None or label.score is None:
                rewards.append(0.0)
                continue
            honesty = (1 - abs(verdict.score - label.score)) * label.self_quality
            rewards.append(0.76 * label.score + 0.24 * honesty)
    assert batch.mean_reward == pytest.approx(sum(rewards) / len(rewards))
