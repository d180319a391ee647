"""What of a run is frozen, and what may change when it is resumed."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from proofloop.config.run_file import RunSpec
from proofloop.config.run_file.changes import may_change, what_decides
from proofloop.errors import ConfigError, StoreError
from proofloop.method.prompts import load_pack
from proofloop.runs.create import create_run
from proofloop.runs.spec import check_run, find_spec
from proofloop.schema import keys
from proofloop.schema.records import Record
from proofloop.store import LocalStore, put_record
from proofloop.worker.run_cache import SPEC_CACHE_S
from proofloop.worker.tools import Tools
from tests.builders import RUN, CountingEngine, runspec

SERVER = {"kind": "openai", "settings": {"base_url": "http://one:8000/v1", "max_concurrency": 4}}


def served(**settings: Any) -> RunSpec:
    return runspec(engine={"kind": "openai", "settings": {**SERVER["settings"], **settings}})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            served(base_url="http://two:8000/v1"),
            '[engine.settings] base_url = "http://two:8000/v1", was',
        ),
        (served(max_concurrency=8), "[engine.settings] max_concurrency = 8, was 4"),
        (served(tokens_per_minute=9), "[engine.settings] tokens_per_minute = 9, was unset"),
        (runspec(engine=SERVER, flow={"verifier": 9}), "[flow] verifier = 9, was 8"),
        (
            runspec(engine=SERVER, prices={"per_engine_hour": 2.5}),
            "[prices] per_engine_hour = 2.5, was 0.0",
        ),
        (
            runspec(
                engine=SERVER, problems={"domain": "nano", "count": 3, "proofs_per_problem": 2}
            ),
            "count = 3, was 2",
        ),
        (
            runspec(
                engine=SERVER, problems={"domain": "nano", "count": 2, "proofs_per_problem": 6}
            ),
            "= 6, was 2",
        ),
    ],
)
def test_a_resumed_run_may_move_and_grow(tmp_path: Path, changed: RunSpec, said: str) -> None:
    store = LocalStore(tmp_path)
    create_run(store, runspec(engine=SERVER), resume=False)
    (change,) = check_run(store, changed, resume=True)
    assert said in str(change)
    assert create_run(store, changed, resume=True) == find_spec(store, RUN) == changed
    assert check_run(store, changed, resume=True) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (served(extra_body={"top_k": 1}), "[engine.settings.extra_body] top_k = 1, was unset"),
        (
            served(extra_body={"max_concurrency": 1}),
            "[engine.settings.extra_body] max_concurrency = 1, was unset",
        ),
        (served(model="other"), '[engine.settings] model = "other", was unset'),
        (served(seed_bits=31), "[engine.settings] seed_bits = 31, was unset"),
        (runspec(), '[engine] kind = "simulated", was "openai"'),
        (
            runspec(engine=SERVER, models={"verifier": "m-2"}),
            '[models] verifier = "m-2", was "m-1"',
        ),
        (runspec(engine=SERVER, labeling={"n": 5}), "[labeling] n = 5, was 4"),
        (runspec(engine=SERVER, seed=1), "seed = 1, was 0"),
        (runspec(engine=SERVER, prompts="nano"), 'prompts = "nano", was "math"'),
        (
            runspec(engine=SERVER, sampling={"verifier": {"temperature": 0.5}}),
            "[sampling.verifier] temperature = 0.5",
        ),
        (
            runspec(engine=SERVER, problems={"domain": "nano", "count": 1}),
            "[problems] count = 1, was 2: it may only gr",
        ),
        (
            runspec(
                engine=SERVER, problems={"domain": "nano", "count": 2, "proofs_per_problem": 1}
            ),
            "[problems] proofs_per_problem = 1, was 2: it may only grow",
        ),
    ],
)
def test_what_decides_an_answer_stays(tmp_path: Path, changed: RunSpec, said: str) -> None:
    store, spec = LocalStore(tmp_path), runspec(engine=SERVER)
    create_run(store, spec, resume=False)
    with pytest.raises(ConfigError, match="hint: ") as refusal:
        create_run(store, changed, resume=True)
    assert said in str(refusal.value) and "name" in refusal.value.hint
    assert find_spec(store, RUN) == spec


def test_the_table_of_a_role_moves_as_that_of_all() -> None:
    spec = served()
    assert may_change(("engine", "verifier", "settings", "base_url"), spec)
    assert may_change(("engine", "verifier", "base_url"), spec)
    assert not may_change(("engine", "verifier", "settings", "model"), spec)
    assert not may_change(("engine", "verifier", "settings", "keep_versions"), spec)
    assert not may_change(("engine", "verifier", "kind"), spec)


def test_endpoints_may_move_and_say_no_other_model(tmp_path: Path) -> None:
    def at(*endpoints: dict[str, Any]) -> RunSpec:
        return runspec(engine={"kind": "openai", "settings": {"endpoints": list(endpoints)}})

    store = LocalStore(tmp_path)
    one = {"base_url": "http://one/v1"}
    two = {"base_url": "http://two/v1", "weight": 2}
    create_run(store, runspec(engine={"kind": "openai", "settings": one}), resume=False)
    create_run(store, at(one, two), resume=True)
    create_run(store, at(two), resume=True)
    other = {**two, "model": "other"}
    with pytest.raises(
        ConfigError, match=r"begun with another run file: \[engine.settings\] endpoints = .*other"
    ):
        create_run(store, at(one, other), resume=True)
    assert what_decides(at(one)) == what_decides(at(one, two)) != what_decides(at(other))


@pytest.mark.parametrize(
    "decisive", [{"model": "m-awq"}, {"seed_bits": 31}, {"extra_body": {"top_k": 1}}]
)
def test_a_role_with_an_address_of_its_own_keeps_what_the_endpoints_set(
    tmp_path: Path, decisive: dict[str, Any]
) -> None:
    def with_verifier(**settings: Any) -> RunSpec:
        verifier = {"verifier": {"settings": settings}} if settings else {}
        endpoints = [{"base_url": "http://one/v1", "weight": 2, **decisive}]
        return runspec(engine={"kind": "openai", "settings": {"endpoints": endpoints}, **verifier})

    store, without = LocalStore(tmp_path), with_verifier(base_url="http://two/v1")
    create_run(store, with_verifier(), resume=False)
    with pytest.raises(
        ConfigError, match=r"other settings of the verifier's engine: \{\}, was .*\nhint: repeat"
    ):
        create_run(store, without, resume=True)
    kept = with_verifier(base_url="http://two/v1", **decisive)
    create_run(store, kept, resume=True)
    assert what_decides(with_verifier()) == what_decides(kept) != what_decides(without)


def with_pack(folder: Path) -> RunSpec:
    shutil.copytree(
        str(files("proofloop.method.prompts") / "packs" / "nano"),
        folder / "mine",
        dirs_exist_ok=True,
    )
    return runspec(prompts="mine", base=folder)


def edit(template: Path) -> None:
    template.write_text(template.read_text() + "\nThink twice.\n")


def test_an_edited_prompt_pack_is_refused_and_a_lost_one_is_in_the_store(tmp_path: Path) -> None:
    store, spec, folder = LocalStore(tmp_path / "store"), with_pack(tmp_path), tmp_path / "mine"
    create_run(store, spec, resume=False)
    create_run(store, spec, resume=True)
    edit(folder / "proof_verification.txt")
    refused = (
        r"prompt pack 'mine' was edited since run 'r1' began: proof_verification\nhint: give the"
        r" run another name"
    )
    with pytest.raises(ConfigError, match=refused):
        create_run(store, spec, resume=True)
    shutil.rmtree(folder)
    create_run(store, spec, resume=True)


def test_a_new_run_is_not_begun_with_the_prompts_of_a_process_that_died(tmp_path: Path) -> None:
    store, spec = LocalStore(tmp_path / "store"), with_pack(tmp_path)
    put_record(store, keys.prompts(RUN), load_pack("mine", tmp_path))
    edit(tmp_path / "mine" / "proof_generation.txt")
    with pytest.raises(ConfigError, match="was edited since run 'r1' began: proof_generation"):
        create_run(store, spec, resume=False)
    assert find_spec(store, RUN) is None


def test_prompts_decide_an_answer(tmp_path: Path) -> None:
    spec = with_pack(tmp_path)
    before = what_decides(spec)
    edit(tmp_path / "mine" / "meta_verification.txt")
    assert what_decides(spec) != before


def of_file(file: Path, rows: list[str], **wanted: Any) -> RunSpec:
    file.write_text(json.dumps([{"id": row, "question": f"Prove {row}."} for row in rows]))
    return runspec(problems={"file": file, "proofs_per_problem": 1, **wanted})


def test_problems_may_be_appended_and_are_frozen_from_then_on(tmp_path: Path) -> None:
    store, file = LocalStore(tmp_path / "store"), tmp_path / "problems.json"
    create_run(store, of_file(file, ["a", "b"]), resume=False)
    create_run(store, of_file(file, ["a", "b", "c"]), resume=True)
    for others in (["a", "b", "d"], ["b", "a", "c"], ["a", "x", "b", "c"]):
        with pytest.raises(
            ConfigError, match=r"differs from the file that run .*\nhint: put the old rows"
        ):
            create_run(store, of_file(file, others), resume=True)
    with pytest.raises(
        ConfigError, match="has 2 problems, but run 'r1' has 3: problems may only be added"
    ):
        create_run(store, of_file(file, ["a", "b"]), resume=True)
    create_run(store, of_file(file, ["a", "b", "c", "d"]), resume=True)


def test_a_count_of_a_file_may_grow(tmp_path: Path) -> None:
    store, file = LocalStore(tmp_path / "store"), tmp_path / "problems.json"
    create_run(store, of_file(file, ["a", "b", "c"], count=1), resume=False)
    create_run(store, of_file(file, ["a", "b", "c"], count=2), resume=True)
    create_run(store, of_file(file, ["a", "b", "c"]), resume=True)
    with pytest.raises(ConfigError, match="has 2 problems, but run 'r1' has 3"):
        create_run(store, of_file(file, ["a", "b", "c"], count=2), resume=True)


def test_a_problem_file_of_an_earlier_version_may_grow(tmp_path: Path) -> None:
    class OldDigest(Record):
        digest: str

    store, file = LocalStore(tmp_path / "store"), tmp_path / "problems.json"
    spec = of_file(file, ["a", "b"])
    create_run(LocalStore(tmp_path / "other"), spec, resume=False)
    digest = json.loads(LocalStore(tmp_path / "other").get(keys.problem_file(RUN)))["digest"]
    store.put_if_absent(keys.run_spec(RUN), spec.model_dump_json().encode())
    put_record(store, keys.problem_file(RUN), OldDigest(digest=digest))
    create_run(store, of_file(file, ["a", "b", "c"]), resume=True)


def test_a_group_that_trains_does_not_grow(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    training = {"generator": {"steps": 1}}
    engine = {"kind": "simulated", "settings": {"want_tokens": True}}
    create_run(store, runspec(training=training, engine=engine), resume=False)
    grown = runspec(
        training=training,
        engine=engine,
        problems={"domain": "nano", "count": 2, "proofs_per_problem": 3},
    )
    with pytest.raises(
        ConfigError, match="proofs_per_problem = 3, was 2: the proofs of a problem are a group"
    ):
        create_run(store, grown, resume=True)


def test_a_worker_takes_new_addresses_and_keeps_the_spec_while_the_store_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, clock = LocalStore(tmp_path), [0.0]
    create_run(store, runspec(engine=SERVER), resume=False)
    tools = Tools(store, lambda *_: CountingEngine())
    monkeypatch.setattr("proofloop.worker.run_cache.time.monotonic", lambda: clock[0])
    tools.health.add_taken(RUN, "verifier", "m-1")
    assert tools.runs.spec(RUN) == runspec(engine=SERVER)
    moved = served(base_url="http://two:8000/v1")
    create_run(store, moved, resume=True)
    clock[0] += SPEC_CACHE_S
    with monkeypatch.context() as away:
        away.setattr(tools.runs, "_store", Away())
        assert tools.runs.spec(RUN) == runspec(engine=SERVER)
    clock[0] += SPEC_CACHE_S
    assert (tools.runs.spec(RUN), tools.health.has_taken_any) == (moved, False)


class Away:
    def list(self, prefix: str) -> list[str]:
        raise StoreError("away")


def test_what_decides_leaves_out_where_the_engine_is() -> None:
    here, there, other = served(), served(base_url="http://two:8000/v1"), served(seed_bits=31)
    assert what_decides(here) == what_decides(there) != what_decides(other)
