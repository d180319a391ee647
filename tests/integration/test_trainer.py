"""The trainer on a real store and the shipped nano base: what it publishes, and what it
survives.
"""

from __future__ import annotations

import gc
import json
import random
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from proofloop.config.run_file import RunSpec
from proofloop.errors import ConfigError, CorruptObject, ProofloopError, Reject, StoreError
from proofloop.method.domains.nano import NanoDomain
from proofloop.pipeline.embedded import EmbeddedPipeline
from proofloop.runs.create import check_training, create_run
from proofloop.runs.model_registry import published_versions, served_log
from proofloop.runs.planned import planned
from proofloop.runs.progress import RunProgress
from proofloop.runs.spec import find_spec
from proofloop.schema import keys
from proofloop.schema.events import ModelPublished, ProblemPosed, ProofLabeled
from proofloop.schema.records import Critique, Label, Proof, TrainingBatch, TrainingStep, Verdict
from proofloop.store import LocalStore, get_record, put_record
from proofloop.store.model_folders import verify_version, version_folder
from proofloop.worker.engine_pool import Engines
from proofloop.worker.tools import Tools
from tests.builders import MALFORMED, RUN, runspec

pytest.importorskip("proofloop_trainer", reason="proofloop-trainer is not installed")

import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from proofloop_trainer.nano import base_folder
from proofloop_trainer.train import Trainer, check_settings

pytestmark = pytest.mark.usefixtures("quiet_log")

ROLES = ("generator", "verifier")
MADE_LATER = (
    "labels",
    "batches",
    "skipped",
    "steps",
    "checkpoints",
    "models",
    "served",
    "late-000*",
)
"""What the labeler, the trainer and the roles that adopt its versions leave in a run's folder."""


def training(generator: int, verifier: int) -> dict[str, Any]:
    settings = {"epochs": 1, "learning_rate": 1e-3}
    steps = {"generator": generator, "verifier": verifier}
    roles = {role: {"steps": count, "settings": settings} for role, count in steps.items()}
    return {"problems": 2, "ahead": 1.0, **roles}


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


class FinishedRun(NamedTuple):
    """A finished run with training, and a proof that was asked for after it."""

    store: LocalStore
    spec: RunSpec
    progress: RunProgress
    late: str


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    store, spec, late = LocalStore(tmp_path_factory.mktemp("finished")), nano_spec(), "late-000"
    create_run(store, spec, resume=False)
    problem = NanoDomain().pose(99, split="train", seed=0)
    put_record(store, keys.problem(RUN, problem.id), problem)
    engines = Engines(store, store.root / "cache")
    with EmbeddedPipeline(store, engines, spec) as pipeline:
        progress = pipeline.run()
        time.sleep(0.6)  # longer than a worker may go on using the version it knows
        pipeline.replay(
            [ProblemPosed(run_id=RUN, problem_id=problem.id, proof_id=late, group=problem.id)]
        )
    engines.close()
    return FinishedRun(store, spec, progress, late)


def copy_untrained(finished: FinishedRun, folder: Path) -> LocalStore:
    left_out = shutil.ignore_patterns(*MADE_LATER)
    shutil.copytree(finished.store.root / keys.run(RUN), folder / keys.run(RUN), ignore=left_out)
    return LocalStore(folder)


@pytest.fixture
def store(finished: FinishedRun, tmp_path: Path) -> LocalStore:
    """The criticised proofs of that run, before any label."""
    return copy_untrained(finished, tmp_path / "store")


@pytest.fixture(scope="module")
def labels(finished: FinishedRun) -> tuple[Label, ...]:
    """The labels of that run, problem by problem, four a problem."""
    found = (
        get_record(finished.store, key, Label) for key in finished.store.list(keys.labels(RUN))
    )
    return tuple(label for label in found if label.proof_id != finished.late)


def batches(store: LocalStore, role: str) -> list[TrainingBatch]:
    return [get_record(store, key, TrainingBatch) for key in store.list(keys.batches(RUN, role))]


def steps(store: LocalStore, role: str) -> list[TrainingStep]:
    return [get_record(store, key, TrainingStep) for key in store.list(keys.steps(RUN, role))]


# -- a run with training, from end to end
# ------------------------------------------------------------------------------


def test_versions_are_published_whole_and_put_in_service(finished: FinishedRun) -> None:
    expected = {"generator": 2, "verifier": 1}
    assert finished.progress.steps == expected
    for role, count in expected.items():
        versions = [keys.model(RUN, role, step) for step in range(1, count + 1)]
        assert published_versions(finished.store, RUN, role) == versions  # type: ignore[arg-type]
        assert [line.version for line in served_log(finished.store, RUN, role)] == versions  # type: ignore[arg-type]
        for version in versions:
            verify_version(finished.store, version)
            names = {key.rpartition("/")[2] for key in finished.store.list(f"{version}/")}
            assert {"config.json", "model.safetensors", "manifest.json"} <= names
            assert not any("optimizer" in name for name in names)
    assert published_versions(finished.store, RUN, "meta_verifier") == []


def test_only_the_last_checkpoint_of_a_role_is_kept(finished: FinishedRun) -> None:
    for role, count in (("generator", 2), ("verifier", 1)):
        kept = {keys.version_of(key) for key in finished.store.list(keys.checkpoints(RUN, role))}
        assert kept == {keys.checkpoint(RUN, role, count)}
        verify_version(finished.store, keys.checkpoint(RUN, role, count))


def test_a_role_uses_each_problem_in_one_batch(finished: FinishedRun) -> None:
    problems = {event.problem_id for event in planned(finished.spec, finished.store)}
    for role, count in (("generator", 2), ("verifier", 1)):
        found = batches(finished.store, role)
        used = [problem for batch in found for problem in batch.problems]
        assert [(batch.role, batch.step, len(batch.problems)) for batch in found] == [
            (role, n, 2) for n in range(count)
        ]
        assert len(used) == len(set(used)) == 2 * count
        assert set(used) <= problems
        for sample in (sample for batch in found for sample in batch.samples):
            assert any(problem in sample.key for problem in used)
            assert 0.0 <= sample.reward <= 1.0


def test_a_step_is_recorded_with_what_explains_it(finished: FinishedRun) -> None:
    for role, count in (("generator", 2), ("verifier", 1)):
        found = steps(finished.store, role)
        assert [step.version for step in found] == [
            keys.model(RUN, role, n) for n in range(1, count + 1)
        ]
        for step, batch in zip(found, batches(finished.store, role), strict=True):
            assert step.sampled_by == tuple(
                sorted({sample.model_version for sample in batch.samples})
            )
            assert step.reward_parts == batch.reward_parts
            assert "format" in step.reward_parts
            assert step.figures["mean_reward"] == batch.mean_reward
            assert {"loss", "kl", "entropy", "grad_norm", "seconds"} <= set(step.figures)
            assert step.figures["readable"] == pytest.approx(batch.reward_parts["format"])
            assert batch.figures.items() <= step.figures.items()
    assert steps(finished.store, "generator")[0].sampled_by == (str(base_folder()),)


def test_what_is_asked_for_after_a_step_is_answered_by_the_new_version(
    finished: FinishedRun,
) -> None:
    proof = get_record(finished.store, keys.proof(RUN, finished.late), Proof)
    assert proof.provenance.model_version == keys.model(RUN, "generator", 2)
    assert proof.verifier_version == keys.model(RUN, "verifier", 1)
    critiques = [
        get_record(finished.store, key, Critique)
        for key in finished.store.list(keys.critiques(RUN, finished.late))
    ]
    assert {critique.provenance.model_version for critique in critiques} <= {
        keys.model(RUN, "verifier", 1)
    }
    assert bool(critiques) == (proof.verdict.score is not None)


def test_no_proof_is_posed_before_the_trainer_may_have_used_those_before(
    finished: FinishedRun,
) -> None:
    """With ahead = 1 the second pair of problems waits for the first step of both roles."""
    order = list(
        dict.fromkeys(event.problem_id for event in planned(finished.spec, finished.store))
    )
    first = max(
        finished.store.path(f"{keys.model(RUN, role, 1)}/manifest.json").stat().st_mtime_ns
        for role in ROLES
    )
    written = [
        finished.store.path(keys.proof(RUN, f"{problem}-000")).stat().st_mtime_ns
        for problem in order
    ]
    assert [moment < first for moment in written] == [True, True, False, False]


# -- the handler alone, on labels that are there
# -----------------------------------------------------------------------


class Handler:
    """A trainer over a store; `deliver` does what the labeler and the bus do."""

    def __init__(self, store: LocalStore, spec: RunSpec) -> None:
        if not store.exists(keys.run_spec(RUN)):
            create_run(store, spec, resume=False)
        self.store, self.spec, self._trainer = store, spec, Trainer()
        self._tools = Tools(store, lambda *_: pytest.fail("the trainer asks no engine"))

    def deliver(self, labels: Sequence[Label]) -> list[tuple[str, int]]:
        """What was published: the role and the step."""
        found: list[tuple[str, int]] = []
        for label in labels:
            put_record(self.store, keys.label(RUN, label.proof_id), label)
            events = list(self._trainer.train(ProofLabeled.of(label), self._tools))
            assert all(isinstance(event, ModelPublished) for event in events)
            found += [
                (event.role, int(event.version[-6:]))
                for event in events
                if isinstance(event, ModelPublished)
            ]
        return found


def learned(store: LocalStore) -> dict[str, str]:
    """The digest of every file of every model version, from the manifests."""
    found = {}
    for role in ROLES:
        for version in published_versions(store, RUN, role):
            manifest = json.loads(store.get(f"{version}/manifest.json"))
            found.update(
                {f"{version}/{entry['name']}": entry["sha256"] for entry in manifest["files"]}
            )
    return found


def figures(store: LocalStore) -> list[dict[str, float]]:
    """The figures of all steps, without the time they took."""
    return [
        {name: value for name, value in step.figures.items() if name != "seconds"}
        for role in ROLES
        for step in steps(store, role)
    ]


def test_labels_that_are_delivered_again_train_nothing_again(
    store: LocalStore, labels: tuple[Label, ...]
) -> None:
    handler = Handler(store, nano_spec(training=training(1, 0)))
    assert handler.deliver(labels[:8]) == [("generator", 1)]
    before, batch = learned(store), batches(store, "generator")
    assert handler.deliver(labels[:7]) == []
    assert handler.deliver(labels[7:8]) == [("generator", 1)]  # it says again what it said before
    assert handler.deliver(labels) == [("generator", 1)]
    assert (learned(store), batches(store, "generator")) == (before, batch)
    assert len(batch) == len(steps(store, "generator")) == 1


def test_a_role_whose_training_is_over_keeps_no_model_in_memory(
    store: LocalStore, labels: tuple[Label, ...]
) -> None:
    """Python's own search for cycles is off: it would not come in time for a GPU."""
    gc.collect()
    before = num_models()
    handler = Handler(store, nano_spec(training=training(1, 0)))
    gc.disable()
    try:
        assert handler.deliver(labels[:8]) == [("generator", 1)]
        assert num_models() == before
    finally:
        gc.enable()


def num_models() -> int:
    return sum(issubclass(type(one), PreTrainedModel) for one in gc.get_objects())


def test_a_problem_that_was_used_is_not_used_by_a_new_trainer(
    store: LocalStore, labels: tuple[Label, ...]
) -> None:
    first = Handler(store, nano_spec(training=training(2, 0)))
    assert first.deliver(labels[:8]) == [("generator", 1)]
    again = Handler(store, first.spec)
    # Announced again, in case the first announcement was lost.
    assert again.deliver(labels[:12]) == [("generator", 1)]
    assert again.deliver(labels[12:]) == [("generator", 2)]
    problems = [problem for batch in batches(store, "generator") for problem in batch.problems]
    assert len(problems) == len(set(problems)) == 4


def test_a_new_trainer_counts_the_labels_that_an_older_one_was_told_of(
    store: LocalStore, labels: tuple[Label, ...]
) -> None:
    spec = nano_spec(training=training(1, 0))
    assert Handler(store, spec).deliver(labels[:7]) == []
    assert Handler(store, spec).deliver(labels[7:8]) == [("generator", 1)]


def test_a_batch_is_the_same_in_whatever_order_its_labels_arrive(
    store: LocalStore, labels: tuple[Label, ...], tmp_path: Path
) -> None:
    spec = nano_spec(training=training(1, 1))
    other = LocalStore(tmp_path / "other")
    shutil.copytree(store.root / keys.run(RUN), other.root / keys.run(RUN))
    Handler(store, spec).deliver(labels[:8])
    Handler(other, spec).deliver(random.Random(0).sample(labels[:8], 8))
    for role in ROLES:
        assert batches(store, role) == batches(other, role) != []
    assert learned(store) == learned(other)


def test_a_role_s_training_begins_when_the_other_has_taken_its_steps(
    store: LocalStore, labels: tuple[Label, ...]
) -> None:
    late = training(0, 2) | {"problems": 1, "generator": {"steps": 1, "begin": 2}}
    handler = Handler(store, nano_spec(training=late))
    assert handler.deliver(labels) == [("verifier", 1), ("verifier", 2), ("generator", 1)]
    order = list(dict.fromkeys(label.group for label in labels))
    assert [batch.problems for batch in batches(store, "verifier")] == [(order[0],), (order[1],)]
    assert [batch.problems for batch in batches(store, "generator")] == [(order[2],)]


def test_a_new_trainer_passes_over_what_came_before_a_role_s_training_began(
    store: LocalStore, labels: tuple[Label, ...]
) -> None:
    """A restart at any label gives the batches of a trainer that ran through."""
    late = training(0, 2) | {"problems": 1, "generator": {"steps": 1, "begin": 2}}
    spec = nano_spec(training=late)
    order = list(dict.fromkeys(label.group for label in labels))
    assert Handler(store, spec).deliver(labels[:8]) == [("verifier", 1), ("verifier", 2)]
    for label in labels[8:]:
        Handler(store, spec).deliver([label])
    assert [batch.problems for batch in batches(store, "verifier")] == [(order[0],), (order[1],)]
    assert [batch.problems for batch in batches(store, "generator")] == [(order[2],)]


def test_labels_that_no_trainer_was_told_of_are_counted_one_after_the_other(
    store: LocalStore, labels: tuple[Label, ...]
) -> None:
    late = training(0, 2) | {"problems": 1, "generator": {"steps": 1, "begin": 2}}
    handler = Handler(store, nano_spec(training=late))
    for label in labels:
        put_record(store, keys.label(RUN, label.proof_id), label)
    assert handler.deliver(labels[-1:]) == [("verifier", 1), ("verifier", 2), ("generator", 1)]
    assert [batch.problems for batch in batches(store, "generator")] == [(labels[8].group,)]


class Killed(BaseException):
    """Ends the process: it is never caught."""


class DyingStore(LocalStore):
    """Ends its process at `moment`: just before it would read, write or delete what is named, or
    just after.
    """

    def __init__(self, root: Path, moment: str) -> None:
        super().__init__(root)
        self._moment = moment

    def get(self, key: str) -> bytes:
        self._pass(f"read {key}")
        return super().get(key)

    def put_if_absent(self, key: str, data: bytes, *, durable: bool = False) -> bool:
        self._pass(f"write {key}")
        is_new = super().put_if_absent(key, data, durable=durable)
        self._pass(f"wrote {key}")
        return is_new

    def delete_prefix(self, prefix: str) -> int:
        is_whole = self.exists(f"{prefix}manifest.json")
        if is_whole:
            self._pass(f"delete {prefix}")
        count = super().delete_prefix(prefix)
        if is_whole:
            self._pass(f"deleted {prefix}")
        return count

    def _pass(self, what: str) -> None:
        if not what.endswith("/manifest.json"):
            what = re.sub("/[0-9a-f]{12}/", "/", what)  # the folder of a version's files
        if what.startswith(self._moment):
            self._die(what)

    def _die(self, what: str) -> None:
        raise Killed(what)


class AwayStore(DyingStore):
    """Is away at `moment`, once."""

    was_away = False

    def _die(self, what: str) -> None:
        if not self.was_away:
            self.was_away = True
            raise StoreError(f"away: {what}")


WRITES = [
    keys.batch(RUN, "generator", 1),
    keys.step(RUN, "generator", 2),
    f"{keys.checkpoint(RUN, 'generator', 2)}/model.safetensors",
    f"{keys.checkpoint(RUN, 'generator', 2)}/manifest.json",
    f"{keys.model(RUN, 'generator', 2)}/model.safetensors",
    f"{keys.model(RUN, 'generator', 2)}/manifest.json",
]
"""The second step of the generator's, in its order; then the first checkpoint goes."""

DELETED = f"{keys.checkpoint(RUN, 'generator', 1)}/"


@pytest.fixture(scope="module")
def undisturbed(
    finished: FinishedRun, labels: tuple[Label, ...], tmp_path_factory: pytest.TempPathFactory
) -> LocalStore:
    """Two steps of the generator that nothing interrupts."""
    store = copy_untrained(finished, tmp_path_factory.mktemp("undisturbed"))
    handler = Handler(store, nano_spec(training=training(2, 0)))
    assert handler.deliver(labels) == [("generator", 1), ("generator", 2)]
    return store


def check_only_checkpoint(store: LocalStore, step: int) -> None:
    """Of the generator: whole, and no older one beside it."""
    verify_version(store, keys.checkpoint(RUN, "generator", step))
    found = {keys.version_of(key) for key in store.list(keys.checkpoints(RUN, "generator"))}
    assert found == {keys.checkpoint(RUN, "generator", step)}


@pytest.mark.parametrize("moment", [*(f"write {key}" for key in WRITES), f"delete {DELETED}"])
def test_a_trainer_killed_at_any_write_of_a_step_takes_the_same_step_again(
    store: LocalStore, undisturbed: LocalStore, labels: tuple[Label, ...], moment: str
) -> None:
    spec = nano_spec(training=training(2, 0))
    with pytest.raises(Killed):
        Handler(DyingStore(store.root, moment), spec).deliver(labels)
    whole = 2 if moment.startswith("delete") else 1
    assert len(published_versions(store, RUN, "generator")) == whole
    assert Handler(store, spec).deliver(labels[-1:])[-1] == ("generator", 2)
    assert batches(store, "generator") == batches(undisturbed, "generator")
    assert figures(store) == figures(undisturbed)
    assert learned(store) == learned(undisturbed)
    check_only_checkpoint(store, 2)


@pytest.mark.parametrize(
    "moment",
    [
        f"read {keys.proofs(RUN)}",  # of the first batch
        *(f"{moment} {key}" for key in WRITES for moment in ("write", "wrote")),
        f"read {keys.model(RUN, 'generator', 2)}/manifest.json",
        *(f"{moment} {DELETED}" for moment in ("delete", "deleted")),
    ],
)
def test_a_trainer_whose_store_was_away_takes_the_same_steps_afterwards(
    store: LocalStore, undisturbed: LocalStore, labels: tuple[Label, ...], moment: str
) -> None:
    away = AwayStore(store.root, moment)
    handler, said = Handler(away, nano_spec(training=training(2, 0))), []
    for label in labels:
        try:
            said += handler.deliver([label])
        except StoreError:
            said += handler.deliver([label])
    assert away.was_away
    assert said == [("generator", 1), ("generator", 2)]
    assert batches(store, "generator") == batches(undisturbed, "generator")
    assert figures(store) == figures(undisturbed)
    assert learned(store) == learned(undisturbed)
    check_only_checkpoint(store, 2)


def test_after_a_loss_that_is_not_finite_the_last_checkpoint_trains(
    store: LocalStore, undisturbed: LocalStore, labels: tuple[Label, ...]
) -> None:
    spec = nano_spec(training=training(2, 0))
    Handler(store, spec).deliver(labels[:8])
    sound = get_record(undisturbed, keys.batch(RUN, "generator", 1), TrainingBatch)
    low = [
        one.tokens.model_copy(update={"logprobs": (-1000.0,) * len(one.tokens.logprobs)})
        for one in sound.samples
    ]
    samples = (
        one.model_copy(update={"tokens": tokens})
        for one, tokens in zip(sound.samples, low, strict=True)
    )
    put_record(
        store, keys.batch(RUN, "generator", 1), sound.model_copy(update={"samples": tuple(samples)})
    )
    handler = Handler(store, spec)
    for _ in range(2):
        with pytest.raises(
            ProofloopError, match=r"step 2, .* loss .* nothing is published of this step"
        ):
            handler.deliver(labels[:1])
    assert published_versions(store, RUN, "generator") == [keys.model(RUN, "generator", 1)]
    store.path(keys.batch(RUN, "generator", 1)).write_text(sound.model_dump_json())
    assert Handler(store, spec).deliver(labels)[-1] == ("generator", 2)
    assert learned(store) == learned(undisturbed)


def test_a_version_whose_maker_was_killed_before_it_could_say_so_is_announced(
    store: LocalStore, labels: tuple[Label, ...]
) -> None:
    spec = nano_spec(training=training(1, 0))
    Handler(store, spec).deliver(labels)
    assert Handler(store, spec).deliver(labels[:2]) == [("generator", 1)]


def test_a_version_is_announced_though_the_store_was_away_when_a_new_trainer_began(
    store: LocalStore, labels: tuple[Label, ...]
) -> None:
    spec = nano_spec(training=training(1, 0))
    Handler(store, spec).deliver(labels)
    again = Handler(AwayStore(store.root, f"read {keys.model(RUN, 'generator', 1)}"), spec)
    with pytest.raises(StoreError):
        again.deliver(labels[:1])
    assert again.deliver(labels[:1]) == [("generator", 1)]


def test_a_damaged_checkpoint_is_named_before_anything_is_done(
    store: LocalStore, labels: tuple[Label, ...]
) -> None:
    spec = nano_spec(training=training(2, 0))
    Handler(store, spec).deliver(labels[:8])
    check_training(store, spec)
    checkpoint = keys.checkpoint(RUN, "generator", 1)
    file = version_folder(store, store.root, checkpoint) / "optimizer.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(
        CorruptObject,
        match=rf"{checkpoint}/\w+/optimizer\.safetensors has digest .*, its manifest says",
    ):
        check_training(store, spec)
    with pytest.raises(
        CorruptObject, match=r"optimizer\.safetensors has changed: expected \d+ bytes, sha256"
    ):
        Handler(store, spec).deliver(labels)
    assert published_versions(store, RUN, "generator") == [keys.model(RUN, "generator", 1)]
    before = sorted(store.list(keys.run(RUN)))
    with pytest.raises(CorruptObject, match="has digest"):
        create_run(store, spec, resume=True)
    assert sorted(store.list(keys.run(RUN))) == before
    file.unlink()
    with pytest.raises(CorruptObject, match=r"optimizer\.safetensors is missing"):
        check_training(store, spec)


def test_a_run_whose_trainer_gave_up_says_so_in_the_end(
    finished: FinishedRun, store: LocalStore, labels: tuple[Label, ...]
) -> None:
    """All proofs have labels, and no step could be taken: the run did not do what it was asked
    to.
    """
    wrong = {"steps": 1, "settings": {"epohcs": 2}}
    spec = nano_spec(training={"problems": 2, "generator": wrong}, engine={"kind": "simulated"})
    create_run(store, spec, resume=False)
    for label in labels:
        put_record(store, keys.label(RUN, label.proof_id), label)
    engines = Engines(store, store.root / "cache")
    with (
        pytest.raises(ProofloopError, match=r"epohcs"),
        EmbeddedPipeline(store, engines, spec) as pipeline,
    ):
        pipeline.run()
    engines.close()


def test_a_setting_that_grpo_does_not_know_is_named_with_its_place(
    store: LocalStore, labels: tuple[Label, ...]
) -> None:
    wrong = {"steps": 1, "settings": {"epohcs": 2}}
    handler = Handler(store, nano_spec(training={"problems": 2, "generator": wrong}))
    with pytest.raises(
        ConfigError, match=r"unknown key epohcs in \[training\.generator\.settings\]"
    ) as caught:
        handler.deliver(labels[:1])
    assert "known keys: " in caught.value.hint and "epochs" in caught.value.hint


def test_a_reference_that_is_no_model_is_named_before_an_answer_is_paid(tmp_path: Path) -> None:
    wrong = {"problems": 2, "generator": {"steps": 1, "reference": "typo"}}
    with pytest.raises(ConfigError, match=r"\[training\.generator\] reference: no model in .*typo"):
        check_settings(nano_spec(training=wrong))
    version = keys.model("other", "generator", 3)
    wrong["generator"] |= {"reference": version}
    store = LocalStore(tmp_path)
    with pytest.raises(
        ConfigError, match=rf"\[training\.generator\] reference: .* no version '{version}'"
    ):
        create_run(store, nano_spec(training=wrong), resume=False)
    assert find_spec(store, RUN) is None


def test_a_model_that_cannot_be_loaded_is_refused_once(
    store: LocalStore, labels: tuple[Label, ...], tmp_path: Path
) -> None:
    damaged = Path(shutil.copytree(base_folder(), tmp_path / "damaged"))
    (damaged / "model.safetensors").write_bytes(b"")
    section = {"problems": 2, "generator": {"steps": 1, "reference": str(damaged)}}
    handler = Handler(store, nano_spec(training=section))
    with pytest.raises(Reject, match=r"training of the generator cannot begin: .*damaged cannot"):
        handler.deliver(labels)


def test_problems_whose_proofs_all_earned_the_same_make_a_step_that_changes_nothing(
    store: LocalStore, labels: tuple[Label, ...]
) -> None:
    failed = {"score": None, "outcome": "unreadable", "kind": "unreadable"}
    for key in store.list(keys.proofs(RUN)):
        if key.endswith("/proof.json"):
            unread = get_record(store, key, Proof).model_copy(update={"verdict": MALFORMED})
            store.path(key).write_text(unread.model_dump_json())
    handler = Handler(store, nano_spec(training=training(1, 0)))
    assert handler.deliver([label.model_copy(update=failed) for label in labels]) == [
        ("generator", 1)
    ]
    (step,) = steps(store, "generator")
    assert (step.figures["updates"], step.figures["mean_reward"]) == (0, 0.0)
    served = load_file(version_folder(store, store.root, step.version) / "model.safetensors")
    base = load_file(base_folder() / "model.safetensors")
    assert all(torch.equal(served[name], weights) for name, weights in base.items())


def test_problems_without_a_single_group_are_skipped(
    store: LocalStore, labels: tuple[Label, ...]
) -> None:
    open_question = {"score": None, "outcome": "undecided", "kind": "undecided"}
    undecided = [label.model_copy(update=open_question) for label in labels[:8]]
    handler = Handler(store, nano_spec(training=training(1, 0)))
    assert handler.deliver([*undecided, *labels[8:]]) == [("generator", 1)]
    (batch,) = batches(store, "generator")
    assert set(batch.problems) == {label.group for label in labels[8:]}


def test_problems_that_were_skipped_are_not_waited_for_by_a_new_trainer(
    store: LocalStore, labels: tuple[Label, ...]
) -> None:
    open_question = {"score": None, "outcome": "undecided", "kind": "undecided"}
    undecided = [label.model_copy(update=open_question) for label in labels[8:]]
    spec = nano_spec(training=training(1, 0))
    assert Handler(store, spec).deliver([*undecided, *labels[:4]]) == []
    assert Handler(store, spec).deliver(labels[4:8]) == [("generator", 1)]
    (batch,) = batches(store, "generator")
    assert set(batch.problems) == {label.group for label in labels[:8]}


@pytest.mark.parametrize(("most", "taken"), [(None, 2), (1, 2), (0, 1)])
def test_no_step_learns_from_answers_of_a_model_that_is_too_old(
    most: int | None, taken: int, store: LocalStore, labels: tuple[Label, ...]
) -> None:
    """All answers are the first model's: at the second step it is one step old."""
    settings = {"max_staleness": most}
    wanted = training(2, 0)
    wanted["generator"] = {
        **wanted["generator"],
        "settings": {**wanted["generator"].get("settings", {}), **settings},
    }
    handler = Handler(store, nano_spec(training=wanted))
    handler.deliver(labels)
    assert [step.step for step in steps(store, "generator")] == list(range(1, taken + 1))
    assert len(batches(store, "generator")) == taken


def test_what_a_wrong_format_earned_is_in_the_mean_though_its_group_is_silent(
    finished: FinishedRun,
) -> None:
    """A batch's mean is over all samples of its problems, not over those that train."""
    batch = batches(finished.store, "generator")[0]
    rewards = []
    for problem in batch.problems:
        for number in range(finished.spec.problems.proofs_per_problem):
            label = get_record(finished.store, keys.label(RUN, f"{problem}-{number:03d}"), Label)
            verdict: Verdict = get_record(
                finished.store, keys.proof(RUN, label.proof_id), Proof
            ).verdict
            if label.outcome == "undecided":
                continue
            if verdict.score is None or label.score is None:
                rewards.append(0.0)
                continue
            honesty = (1 - abs(verdict.score - label.score)) * label.self_quality
            rewards.append(0.76 * label.score + 0.24 * honesty)
    assert batch.mean_reward == pytest.approx(sum(rewards) / len(rewards))
