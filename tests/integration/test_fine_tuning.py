"""Supervised training as a service: of the domain's demonstrations, of a file's and of the best
answers of runs; and what it survives.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer
from typer.testing import CliRunner

from proofloop.cli.app import app
from proofloop.config.run_file import RunSpec, parse_runspec
from proofloop.errors import ConfigError, HintedError, Reject, Retry
from proofloop.method.prompts import load_pack
from proofloop.pipeline.embedded import EmbeddedPipeline
from proofloop.runs.create import create_run
from proofloop.runs.dead_letters import letters_in
from proofloop.runs.labels import labels_of
from proofloop.runs.model_registry import published_versions
from proofloop.runs.planned import is_complete
from proofloop.runs.spec import find_spec
from proofloop.schema import keys
from proofloop.schema.events import FineTuningPosed
from proofloop.schema.records import ALL_ROLES, MODEL_ROLES, Tokens, TrainingStep
from proofloop.store import LocalStore, Store, get_record
from proofloop.store.model_folders import manifest_files, verify_version
from proofloop.worker.engine_pool import Engines
from proofloop.worker.shutdown import Shutdown
from proofloop.worker.tools import Tools
from tests.builders import answer, evaluation, meta_evaluation

pytest.importorskip("proofloop_trainer", reason="proofloop-trainer is not installed")

from proofloop_trainer.checkpoint import weights_digest
from proofloop_trainer.fine_tuning.best_answers import BestAnswer, best_answers
from proofloop_trainer.fine_tuning.encoding import Encoder
from proofloop_trainer.fine_tuning.handler import train_supervised
from proofloop_trainer.fine_tuning.rows import answers_to_learn
from proofloop_trainer.fine_tuning.supervised import Schedule, answer_to_learn, fine_tune
from proofloop_trainer.fine_tuning.texts import demonstration_of
from proofloop_trainer.nano import base_folder
from proofloop_trainer.nano.pretrain import cold_start
from tests.integration.test_trainer import DyingStore, Killed

pytestmark = pytest.mark.usefixtures("quiet_log")

SFT = "sft"
PACK = load_pack("nano")


def sft(store: Store, folder: Path = Path(), **section: Any) -> RunSpec:
    """A run with this [fine_tuning], created in the store."""
    fields = {"name": SFT, "prompts": "nano", "base": folder, "fine_tuning": section}
    return create_run(store, parse_runspec(fields, "a test"), resume=True)


def train(store: Store, shutdown: Shutdown | None = None) -> str:
    """Deliver the message; the version that was made."""
    tools = Tools(store, lambda *_: pytest.fail("it asks no engine"), shutdown=shutdown)
    assert list(train_supervised(FineTuningPosed(run_id=SFT), tools)) == []
    (version,) = published_versions(store, SFT, ALL_ROLES)
    verify_version(store, version)
    return version


def weights(store: Store, version: str) -> str:
    return manifest_files(store, version)["model.safetensors"]


def steps(store: Store) -> list[TrainingStep]:
    return [get_record(store, key, TrainingStep) for key in store.list(keys.steps(SFT, ALL_ROLES))]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


# -- the demonstrations of nano


NANO = {"domain": "nano", "steps": 4, "batch": 8, "learning_rate": 1e-3}


def test_the_cold_start_of_nano_gives_the_weights_of_its_function(
    store: LocalStore, tmp_path: Path
) -> None:
    sft(store, **NANO)
    version = train(store)
    assert version == keys.model(SFT, ALL_ROLES, 4)
    cold_start(base_folder(), tmp_path / "own", seed=0, steps=4, batch=8, learning_rate=1e-3)
    assert weights(store, version) == weights_digest(tmp_path / "own")
    found = steps(store)
    assert [(step.role, step.step, step.version) for step in found] == [
        (ALL_ROLES, number, version) for number in (1, 2, 3, 4)
    ]
    assert all(step.figures["loss"] > 0 and step.figures["tokens"] > 0 for step in found)


MODEL = keys.model(SFT, ALL_ROLES, 4)


@pytest.mark.parametrize(
    "moment",
    [
        f"write {keys.step(SFT, ALL_ROLES, 2)}",
        f"write {MODEL}/model.safetensors",
        f"write {MODEL}/manifest.json",
    ],
)
def test_a_trainer_killed_in_a_supervised_training_makes_the_same_model_again(
    store: LocalStore, tmp_path: Path, moment: str
) -> None:
    undisturbed = LocalStore(tmp_path / "undisturbed")
    for one in (store, undisturbed):
        sft(one, **NANO)
    with pytest.raises(Killed):
        train(DyingStore(store.root, moment))
    assert published_versions(store, SFT, ALL_ROLES) == []
    assert weights(store, train(store)) == weights(undisturbed, train(undisturbed))
    assert [step.step for step in steps(store)] == [1, 2, 3, 4]


def test_a_message_that_is_delivered_again_trains_nothing_again(store: LocalStore) -> None:
    sft(store, **NANO)
    version = train(store)
    manifest = store.path(f"{version}/manifest.json")
    made = manifest.stat().st_mtime_ns
    assert train(store) == version
    assert manifest.stat().st_mtime_ns == made


def test_a_trainer_that_must_stop_gives_the_message_back(store: LocalStore) -> None:
    sft(store, **NANO)
    shutdown = Shutdown()
    shutdown.stop("the test")
    with pytest.raises(Retry, match="stopping"):
        train(store, shutdown)
    assert published_versions(store, SFT, ALL_ROLES) == []


def test_demonstrations_of_nano_are_for_nano_models_only(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "gpt2"}')
    sft(store, tmp_path, start="other", **NANO)
    with pytest.raises(Reject, match="is not a nano model"):
        train(store)


# -- a run of its own


def test_a_run_that_was_refused_trains_after_its_cause_is_mended(
    store: LocalStore, tmp_path: Path
) -> None:
    spec = sft(store, tmp_path, start="mine", **NANO)
    engines = Engines(store, store.root / "cache")
    with (
        pytest.raises(HintedError, match=r"the supervised training failed: .*mine"),
        EmbeddedPipeline(store, engines, spec) as pipeline,
    ):
        pipeline.run()
    assert not is_complete(store, spec)
    assert [letter.queue for letter in letters_in(store, SFT)] == ["trainer"]
    shutil.copytree(base_folder(), tmp_path / "mine")
    with EmbeddedPipeline(store, engines, spec) as pipeline:
        progress = pipeline.run()
    engines.close()
    assert is_complete(store, spec)
    assert (progress.steps, progress.planned) == ({ALL_ROLES: 4}, 0)
    assert letters_in(store, SFT) == []
    assert published_versions(store, SFT, ALL_ROLES) == [MODEL]


def test_the_commands_tell_of_a_supervised_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = "".join(f"{name} = {json.dumps(value)}\n" for name, value in NANO.items())
    (tmp_path / "sft.toml").write_text(f"[fine_tuning]\n{section}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PROOFLOOP_BROKER", raising=False)
    CliRunner().invoke(app, ["doctor", "sft.toml"], catch_exceptions=False)
    assert f"sft: made {MODEL}" in said("run", "sft.toml", "--local", "--store", "store")
    rows = said("runs", "steps", "sft", "--store", "store")
    assert "loss" in rows and "None" not in rows
    shown = json.loads(said("runs", "show", "sft", "--store", "store", "--json"))
    assert (shown["state"], shown["versions"]) == ("complete", {ALL_ROLES: 1})


def said(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


# -- demonstrations from a file


QUESTION = "Start with x = 3. Step a: add 4."


def write_rows(folder: Path, *rows: dict[str, Any]) -> dict[str, Any]:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"demonstrations": "rows.jsonl", "batch": 2, "learning_rate": 1e-3}


def rows_of_each_kind() -> list[dict[str, Any]]:
    about = {"question": QUESTION, "solution": "a: 3 + 4 = 7"}
    chat = {"user": QUESTION, "assistant": "a: 3 + 4 = 7"}
    return [
        {"messages": [{"role": role, "content": text} for role, text in chat.items()]},
        {"role": "generator", "question": QUESTION, "answer": answer("a: 3 + 4 = 7")},
        {"role": "verifier", **about, "answer": evaluation("1")},
        {"role": "meta_verifier", **about, "analysis": "Sound.", "answer": meta_evaluation("1")},
    ]


def test_rows_of_every_kind_are_learned_from_a_file(store: LocalStore, tmp_path: Path) -> None:
    spec = sft(store, tmp_path, steps=12, **write_rows(tmp_path, *rows_of_each_kind()))
    (tmp_path / "rows.jsonl").unlink()  # the trainer may run on another machine
    assert train(store) == keys.model(SFT, ALL_ROLES, 12)
    losses = [step.figures["loss"] for step in steps(store)]
    assert losses[-1] < losses[0] - 1
    assert spec.fine_tuning is not None


def test_epochs_count_the_updates_of_a_file(store: LocalStore, tmp_path: Path) -> None:
    sft(store, tmp_path, epochs=3, **write_rows(tmp_path, *rows_of_each_kind()[:3]))
    assert train(store) == keys.model(SFT, ALL_ROLES, 6)


def test_a_row_that_is_too_long_for_the_model_is_named(store: LocalStore, tmp_path: Path) -> None:
    long = {"role": "generator", "question": QUESTION, "answer": answer("a: 3 + 4 = 7\n" * 200)}
    sft(store, tmp_path, **write_rows(tmp_path, *rows_of_each_kind(), long))
    with pytest.raises(Reject, match=r"row 5 of rows\.jsonl has \d+ tokens, .* 512 positions"):
        train(store)


# -- the best answers of runs


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    """A store with the same run twice: `tokens` kept its sampled tokens, `texts` did not."""
    store = LocalStore(tmp_path_factory.mktemp("sampled"))
    engines = Engines(store, store.root / "cache")
    for name in ("tokens", "texts"):
        fields: dict[str, Any] = {
            "name": name,
            "seed_as": "tokens",
            "keep_tokens": name == "tokens",
            "problems": {"domain": "nano", "count": 6, "proofs_per_problem": 3},
            "sampling": {role: {"max_tokens": 96} for role in MODEL_ROLES},
            "labeling": {"n": 3, "m": 2, "k": 1, "stop_early": False},
            "reading": "strict",
        }
        spec = parse_runspec(fields, "a test")
        create_run(store, spec, resume=False)
        with EmbeddedPipeline(store, engines, spec) as pipeline:
            pipeline.run()
    engines.close()
    return store


def chosen(store: Store, *runs: str, **fields: Any) -> list[BestAnswer]:
    fields = {"name": SFT, "fine_tuning": {"runs": list(runs), **fields}}
    section = parse_runspec(fields, "a test").fine_tuning
    assert section is not None
    return best_answers(store, section, seed=0)


def test_the_best_answers_come_by_role_then_in_the_order_of_cases(sampled: LocalStore) -> None:
    found = chosen(sampled, "tokens")
    roles = [MODEL_ROLES.index(each.role) for each in found]
    assert roles == sorted(roles) and set(roles) == {0, 1, 2}
    for role in MODEL_ROLES:
        own = [each.key for each in found if each.role == role]
        assert len(own) == len(set(own))
        if role != "meta_verifier":
            assert own == sorted(own)
    scores = {label.proof_id: label.score for label in labels_of(sampled, "tokens")}
    proofs = [keys.parse_answer(each.key) for each in found if each.role == "generator"]
    assert proofs and all(proof and scores[proof.proof_id] == 1.0 for proof in proofs)


def test_a_role_of_a_run_may_be_named_and_a_limit_counts_prompts(sampled: LocalStore) -> None:
    all_of_them = chosen(sampled, "tokens")
    verifier = [each for each in all_of_them if each.role == "verifier"]
    assert chosen(sampled, "tokens:verifier") == verifier
    few = chosen(sampled, "tokens:verifier", most=2)
    assert len({each.key.partition("/critiques/")[0] for each in few}) == 2
    assert [each for each in verifier if each in few] == few


def test_texts_give_the_tokens_that_were_sampled(sampled: LocalStore) -> None:
    """So a model learns the same from a run that kept no tokens."""
    encoder = Encoder(base_folder())
    with_tokens, texts = chosen(sampled, "tokens"), chosen(sampled, "texts")
    assert [each.role for each in with_tokens] == [each.role for each in texts]
    for kept, text in zip(with_tokens, texts, strict=True):
        assert not text.tokens_key
        shown = demonstration_of(text, PACK, sampled)
        assert shown is not None
        tokens = get_record(sampled, kept.tokens_key, Tokens)
        assert encoder.encode(shown) == tokens.model_copy(update={"logprobs": ()})


def copy_of(sampled: LocalStore, folder: Path) -> LocalStore:
    """The sampled runs in a store of its own: links, since records never change."""
    shutil.copytree(sampled.root, folder, copy_function=shutil.copy)
    return LocalStore(folder)


def test_rejection_fine_tuning_gives_the_weights_of_the_chosen_tokens(
    sampled: LocalStore, tmp_path: Path
) -> None:
    made = {}
    for run in ("tokens", "texts"):
        store = copy_of(sampled, tmp_path / run)
        sft(store, runs=[run], batch=8, epochs=2)
        made[run] = weights(store, train(store))
    tokens = [get_record(sampled, one.tokens_key, Tokens) for one in chosen(sampled, "tokens")]
    learnt = [answer_to_learn(each) for each in tokens]
    fine_tune(base_folder(), tmp_path / "own", learnt, Schedule(batch=8, epochs=2), 0)
    assert made["tokens"] == made["texts"] == weights_digest(tmp_path / "own")


def test_runs_without_a_good_answer_are_refused(sampled: LocalStore, tmp_path: Path) -> None:
    store = copy_of(sampled, tmp_path / "store")
    for path in store.root.glob("runs/tokens/labels/*.json"):
        label = json.loads(path.read_text())
        path.write_text(json.dumps({**label, "outcome": "undecided", "score": None}))
    sft(store, runs=["tokens"])
    with pytest.raises(Reject, match=r"run 'sft' has no answers to learn from.*") as caught:
        train(store)
    assert "lower [fine_tuning] keep" in str(caught.value)


@pytest.mark.parametrize("tokenizer", [{"chat_template": "{{ messages }}"}, {"eos_token": "<pad>"}])
def test_sampled_tokens_of_a_model_with_another_prompt_or_end_are_not_learned(
    sampled: LocalStore, tmp_path: Path, tokenizer: dict[str, str]
) -> None:
    """The vocabulary is the same, as in a family of models."""
    store, start = copy_of(sampled, tmp_path / "store"), tmp_path / "start"
    shutil.copytree(base_folder(), start)
    changed = AutoTokenizer.from_pretrained(start)
    for name, value in tokenizer.items():
        setattr(changed, name, value)
    changed.save_pretrained(start)
    spec = sft(store, start=str(start), runs=["tokens"])
    encoder = Encoder(start)
    expected = [demonstration_of(each, PACK, store) for each in chosen(store, "tokens")]
    assert spec.fine_tuning is not None
    found = answers_to_learn(store, spec, spec.fine_tuning, start).answers
    for learned, shown in zip(found, expected, strict=True):
        assert shown is not None
        tokens = encoder.encode(shown)
        assert learned.prompt_ids_P.tolist() == list(tokens.prompt_ids)
        assert learned.completion_ids_C.tolist() == list(tokens.completion_ids)


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"runs": ["nowhere"]}, r"\[fine_tuning\] runs: .* has no run 'nowhere'"),
        ({**NANO, "start": MODEL}, r"\[fine_tuning\] start: .* has no version 'runs/sft/"),
    ],
)
def test_an_unknown_run_or_version_is_refused_before_the_run_is_stored(
    store: LocalStore, section: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        sft(store, **section)
    assert find_spec(store, SFT) is None
