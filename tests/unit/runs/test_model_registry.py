"""Which version serves: a log that only grows."""

from __future__ import annotations

import hashlib
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import structlog

from proofloop.engine.base import Engine
from proofloop.errors import ConfigError, CorruptObject, EngineError, Reject, Retry, StoreError
from proofloop.runs.model_registry import (
    ServedVersion,
    promote,
    published_versions,
    put_in_service,
    rollback,
    served_log,
)
from proofloop.schema import keys
from proofloop.schema.events import ModelPublished
from proofloop.store import LocalStore
from proofloop.store.model_folders import MANIFEST, publish_folder, verify_version, version_folder
from proofloop.worker.calls import engine_health
from proofloop.worker.roles import adopt
from proofloop.worker.tools import Tools
from tests.builders import RUN, CountingEngine, model_folder, publish_versions, runspec

V1, V2, V3 = (keys.model(RUN, "verifier", step) for step in (1, 2, 3))


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def deliver(store: LocalStore, version: str) -> None:
    """The version's files are in the store, and `ModelPublished` reaches the role."""
    with tempfile.TemporaryDirectory() as scratch:
        publish_folder(store, model_folder(Path(scratch) / "model"), version)
    publish_event(store, version, CountingEngine())


def publish_event(store: LocalStore, version: str, engine: Engine) -> None:
    store.put_if_absent(keys.run_spec(RUN), runspec().model_dump_json().encode())
    event = ModelPublished(run_id=RUN, role="verifier", version=version, digest="d")
    assert list(adopt(event, Tools(store, engine_for=lambda *_: engine))) == []


class LoadingEngine(CountingEngine):
    """Loads versions, or fails to."""

    def __init__(self, error: EngineError | None = None) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self._error = error

    def prepare(self, model: str) -> None:
        if self._error:
            raise self._error
        self.loaded.append(model)


def serving(store: LocalStore) -> list[str]:
    return [line.version for line in served_log(store, RUN, "verifier")]


def test_a_role_serves_its_first_version_until_another_is_published(store: LocalStore) -> None:
    spec = runspec(models={"verifier": "base"})
    store.put_if_absent(keys.run_spec(RUN), spec.model_dump_json().encode())
    assert Tools(store, lambda *_: pytest.fail()).runs.serving(RUN, "verifier") == "base"
    deliver(store, V1)
    assert Tools(store, lambda *_: pytest.fail()).runs.serving(RUN, "verifier") == V1
    assert Tools(store, lambda *_: pytest.fail()).runs.serving(RUN, "generator") == "m-1"


def test_a_version_can_be_named_by_its_number_and_the_first_one_promoted_again(
    store: LocalStore, tmp_path: Path
) -> None:
    publish_versions(store, tmp_path, V1, V2)
    assert promote(store, RUN, "verifier", "2", "m-1") == V2
    assert promote(store, RUN, "verifier", "m-1", "m-1") == "m-1"
    assert serving(store) == [V2, "m-1"]


def test_a_damaged_version_leaves_the_old_one_serving(store: LocalStore) -> None:
    deliver(store, V1)
    publish_versions(store, Path(store.root.parent / "new"), V2)
    (version_folder(store, store.root, V2) / "model.bin").write_bytes(b"damaged")
    event = ModelPublished(run_id=RUN, role="verifier", version=V2, digest="d")
    with pytest.raises(CorruptObject, match=r"model\.bin has digest"):
        list(adopt(event, Tools(store, engine_for=lambda *_: pytest.fail("no engine is needed"))))
    assert [line.version for line in served_log(store, RUN, "verifier")] == [V1]


def test_a_version_is_loaded_before_it_serves(store: LocalStore, tmp_path: Path) -> None:
    publish_versions(store, tmp_path, V1, V2)
    engine = LoadingEngine()
    publish_event(store, V1, engine)
    promote(store, RUN, "verifier", V2, "m-1", engine.prepare)
    rollback(store, RUN, "verifier", "m-1", engine.prepare)
    assert engine.loaded == serving(store) == [V1, V2, V1]


@pytest.mark.parametrize(("retryable", "outcome"), [(True, Retry), (False, Reject)])
def test_a_version_that_cannot_be_loaded_leaves_the_old_one_serving(
    store: LocalStore, tmp_path: Path, retryable: bool, outcome: type[Exception]
) -> None:
    deliver(store, V1)
    publish_versions(store, tmp_path, V2)
    engine = LoadingEngine(EngineError("no room on the GPU", retryable=retryable))
    with pytest.raises(outcome, match="old version stays in service: no room on the GPU"):
        publish_event(store, V2, engine)
    with pytest.raises(EngineError, match="no room"):
        promote(store, RUN, "verifier", V2, "m-1", engine.prepare)
    assert serving(store) == [V1]


def test_a_version_that_nothing_loads_for_long_is_warned_of(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_versions(store, tmp_path, V1)
    tools = Tools(
        store, engine_for=lambda *_: LoadingEngine(EngineError("no Triton has it", retryable=True))
    )
    store.put_if_absent(keys.run_spec(RUN), runspec().model_dump_json().encode())
    said: list[list[str]] = []
    for after_s in (1.0, 0.0):  # soon, and after a while
        monkeypatch.setattr(engine_health, "UNLOADED_S", after_s)
        with structlog.testing.capture_logs() as logs, pytest.raises(Retry):
            list(adopt(ModelPublished(run_id=RUN, role="verifier", version=V1, digest="d"), tools))
        said.append([line["event"] for line in logs])
    assert said == [[], ["version_not_loaded"]]


def test_a_published_version_is_adopted_once(store: LocalStore) -> None:
    for version in (V1, V2, V1, V2, V2):
        deliver(store, version)
    assert served_log(store, RUN, "verifier") == [
        ServedVersion(version=V1, reason=f"published {V1}"),
        ServedVersion(version=V2, reason=f"published {V2}"),
    ]


def test_a_redelivered_publication_does_not_undo_a_rollback(store: LocalStore) -> None:
    deliver(store, V1)
    deliver(store, V2)
    assert rollback(store, RUN, "verifier", "base") == V1
    deliver(store, V2)
    assert serving(store) == [V1, V2, V1]
    deliver(store, V3)
    assert serving(store)[-1] == V3


def test_rolling_back_twice_goes_back_two_and_then_there_is_nothing_left(store: LocalStore) -> None:
    deliver(store, V1)
    deliver(store, V2)
    assert [rollback(store, RUN, "verifier", "base") for _ in range(2)] == [V1, "base"]
    assert serving(store) == [V1, V2, V1, "base"]
    with pytest.raises(
        ConfigError,
        match=r"verifier in run r1 serves its first version 'base'\nhint: there is nothing to",
    ):
        rollback(store, RUN, "verifier", "base")


def test_a_version_that_was_rolled_back_is_no_goal_of_a_later_rollback(store: LocalStore) -> None:
    deliver(store, V1)
    deliver(store, V2)
    rollback(store, RUN, "verifier", "base")
    deliver(store, V3)
    assert rollback(store, RUN, "verifier", "base") == V1


def test_a_complete_version_can_be_promoted_again_and_again(
    store: LocalStore, tmp_path: Path
) -> None:
    publish_versions(store, tmp_path, V1, V2)
    assert published_versions(store, RUN, "verifier") == [V1, V2]
    for version in (V2, V1, V2):
        promote(store, RUN, "verifier", version, "m-1")
    assert serving(store) == [V2, V1, V2]
    assert rollback(store, RUN, "verifier", "base") == V1


def test_an_unknown_or_unfinished_version_is_not_promoted(
    store: LocalStore, tmp_path: Path
) -> None:
    publish_versions(store, tmp_path, V1)
    store.put_if_absent(f"{V2}/model.bin", b"a killed trainer's")
    for version in (V2, V3, "base"):
        with pytest.raises(
            ConfigError,
            match=rf"verifier has no complete version '{version}' in run r1\nhint: one of m-1,"
            rf" {V1}$",
        ):
            promote(store, RUN, "verifier", version, "m-1")
    with pytest.raises(ConfigError, match=r"one of m-1$"):
        promote(store, RUN, "generator", V1, "m-1")
    assert serving(store) == []


def file_in(version: Path) -> Path:
    (file,) = version.glob("*/model.bin")
    return file


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (
            lambda folder: file_in(folder).write_bytes(b"weightz"),
            "model.bin has digest .*, its manifest says",
        ),
        (lambda folder: file_in(folder).unlink(), "model.bin is missing"),
        (lambda folder: file_in(folder).write_bytes(b""), "model.bin is missing"),
        (lambda folder: (folder / MANIFEST).write_text("{"), "manifest.json cannot be read"),
        (
            lambda folder: (folder / MANIFEST).write_text('{"files": [3]}'),
            "manifest.json cannot be read",
        ),
        (lambda folder: (folder / MANIFEST).write_text("[]"), "manifest.json cannot be read"),
    ],
)
def test_a_damaged_version_is_refused(
    store: LocalStore, tmp_path: Path, damage: object, problem: str
) -> None:
    publish_versions(store, tmp_path, V1)
    verify_version(store, V1)
    damage(store.path(V1))  # type: ignore[operator]
    with pytest.raises(CorruptObject, match=problem):
        promote(store, RUN, "verifier", V1, "m-1")
    assert serving(store) == []


def test_publishing_resumes_and_never_changes_a_finished_version(
    store: LocalStore, tmp_path: Path
) -> None:
    store.put_if_absent(f"{V1}/0123456789ab/model.bin", b"half")
    first = publish_folder(store, model_folder(tmp_path / "a", b"one"), V1)
    again = publish_folder(store, model_folder(tmp_path / "b", b"two"), V1)
    assert first == again == hashlib.sha256((tmp_path / "a" / MANIFEST).read_bytes()).hexdigest()
    folder = version_folder(store, tmp_path, V1)
    assert (folder / "model.bin").read_bytes() == b"one"
    assert {keys.folder_of(key) for key in store.list(f"{V1}/")} == {V1, f"{V1}/{folder.name}"}


class Racing(LocalStore):
    """Another trainer publishes the same version when this one writes `at`, or has just looked."""

    def __init__(self, root: Path, at: str, other: Callable[[], object]) -> None:
        super().__init__(root)
        self._at, self._other = at, other

    def exists(self, key: str) -> bool:
        found = super().exists(key)
        if self._at == "look":
            self._other()
        return found

    def put_if_absent(self, key: str, data: bytes, *, durable: bool = False) -> bool:
        if keys.name_of(key) == self._at:
            self._other()
        return super().put_if_absent(key, data, durable=durable)


@pytest.mark.parametrize("at", ["look", "config", "model.bin", "manifest"])
def test_of_two_trainers_that_publish_a_version_one_wins_whole(
    store: LocalStore, tmp_path: Path, at: str
) -> None:
    mine, others = (model_folder(tmp_path / name, name.encode()) for name in ("mine", "other"))
    racing = Racing(store.root, at, lambda: publish_folder(store, others, V1))
    publish_folder(racing, mine, V1)
    verify_version(store, V1)
    folder = version_folder(store, tmp_path, V1)
    assert (folder / "model.bin").read_bytes() == b"other"
    assert [path.name for path in store.path(V1).iterdir() if path.is_dir()] == [folder.name]


def test_a_published_version_that_comes_late_does_not_replace_a_later_one(
    store: LocalStore, tmp_path: Path
) -> None:
    deliver(store, V2)
    deliver(store, V1)
    assert serving(store) == [V2]
    assert promote(store, RUN, "verifier", V1, "m-1") == V1
    deliver(store, V3)
    assert rollback(store, RUN, "verifier", "m-1") == V1
    assert serving(store) == [V2, V1, V3, V1]


def test_racing_writers_of_the_log_never_go_back(store: LocalStore) -> None:
    versions = [keys.model(RUN, "verifier", step) for step in range(20)]
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(lambda version: put_in_service(store, RUN, "verifier", version), versions * 2)
        )
    assert serving(store) == sorted(set(serving(store)))
    assert serving(store)[-1] == versions[-1]


def test_racing_promotions_all_happen(store: LocalStore, tmp_path: Path) -> None:
    publish_versions(store, tmp_path, V1, V2, V3)
    gate = threading.Barrier(3)

    def promote_at_once(version: str) -> str:
        gate.wait()
        return promote(store, RUN, "verifier", version, "m-1")

    with ThreadPoolExecutor(3) as pool:
        for _ in range(10):
            assert list(pool.map(promote_at_once, (V1, V2, V3))) == [V1, V2, V3]
    assert sorted(serving(store)) == sorted([V1, V2, V3] * 10)


def test_a_rollback_that_another_change_overtakes_says_that_it_did_nothing(
    store: LocalStore,
) -> None:
    deliver(store, V1)
    deliver(store, V2)
    with pytest.raises(
        ConfigError, match="another version went into service meanwhile; nothing was rolled back"
    ):
        rollback(store, RUN, "verifier", "m-1", lambda _: deliver(store, V3))
    assert serving(store) == [V1, V2, V3]


class SlowStore(LocalStore):
    """Takes its time to list, and keeps what was read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.listed, self.read = list[str](), list[str]()

    def list(self, prefix: str) -> Iterator[str]:
        self.listed.append(prefix)
        time.sleep(0.1)
        return super().list(prefix)

    def get(self, key: str) -> bytes:
        self.read.append(key)
        return super().get(key)


def test_one_thread_looks_for_all_which_version_serves_and_reads_one_line(
    store: LocalStore, tmp_path: Path
) -> None:
    for version in (V1, V2, V3):
        deliver(store, version)
    slow = SlowStore(store.root)
    tools = Tools(slow, lambda *_: pytest.fail())
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: tools.runs.serving(RUN, "verifier"), range(8))) == {V3}
    assert slow.listed == [keys.served(RUN, "verifier")]
    assert slow.read == [f"{keys.served(RUN, 'verifier')}000002.json"]


def test_a_model_lies_in_the_store_or_beside_the_run_file(
    store: LocalStore, tmp_path: Path
) -> None:
    publish_versions(store, tmp_path, V1)
    assert version_folder(store, tmp_path / "cache", V1).parent == store.path(V1)
    assert version_folder(store, tmp_path / "cache", "mine", tmp_path) == tmp_path / "mine"


class Elsewhere:
    """A store that is not a local folder; it calls `watch` before each read."""

    def __init__(self, store: LocalStore, watch: Callable[[str], None]) -> None:
        self._store, self._watch = store, watch

    def get(self, key: str) -> bytes:
        self._watch(key)
        return self._store.get(key)

    def chunks(self, key: str) -> Iterator[bytes]:
        self._watch(key)
        return self._store.chunks(key)


def test_a_fetched_version_is_there_whole_or_not_at_all(store: LocalStore, tmp_path: Path) -> None:
    publish_versions(store, tmp_path, V1)
    cache, reads = tmp_path / "cache", []

    def watch(key: str) -> None:
        reads.append(key)
        assert not list(cache.glob(f"{V1}-*/{MANIFEST}"))
        if len(reads) == 3:  # the manifest and a file were fetched
            raise StoreError("away")

    remote: Any = Elsewhere(store, watch)
    with pytest.raises(StoreError):
        version_folder(remote, cache, V1)
    assert list((cache / V1).parent.iterdir()) == []
    folder = version_folder(remote, cache, V1)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in version_folder(store, cache, V1).iterdir()
    }


@pytest.mark.parametrize("name", ["{outside}", "../outside", "..", ".a", "a\0"])
def test_a_manifest_names_no_file_outside_its_folder(
    name: str, store: LocalStore, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_text("as before")
    files = [{"name": name.format(outside=outside), "sha256": "0"}]
    store.put_if_absent(f"{V1}/{MANIFEST}", json.dumps({"files": files}).encode())
    remote: Any = Elsewhere(store, lambda key: None)
    with pytest.raises(CorruptObject, match="is not a file name"):
        version_folder(remote, tmp_path / "cache", V1)
    assert outside.read_text() == "as before"


def test_the_last_used_copies_of_versions_are_kept(store: LocalStore, tmp_path: Path) -> None:
    versions = [keys.model(RUN, "verifier", step) for step in range(1, 8)]
    publish_versions(store, tmp_path, *versions)
    remote: Any = Elsewhere(store, lambda key: None)
    cache = tmp_path / "cache"
    version_folder(remote, cache, versions[0])
    for version in versions[1:]:
        version_folder(remote, cache, version)
        version_folder(remote, cache, versions[0])
    kept = sorted(path.name.partition("-")[0] for path in (cache / V1).parent.iterdir())
    assert kept == ["000001", "000005", "000006", "000007"]


def test_of_two_processes_that_fetch_a_version_the_first_one_s_stays(
    store: LocalStore, tmp_path: Path
) -> None:
    publish_versions(store, tmp_path, V1)
    cache, others = tmp_path / "cache", []

    def watch(key: str) -> None:
        # Another process fetches it in the midst of this.
        if key.endswith("model.bin") and not others:
            others.append(key)
            version_folder(remote, cache, V1)

    remote: Any = Elsewhere(store, watch)
    folder = version_folder(remote, cache, V1)
    assert (folder / "model.bin").read_bytes() == V1.encode()
    assert list(folder.parent.iterdir()) == [folder]


def test_a_version_of_another_store_is_not_taken_from_the_cache(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for content in (b"of one store", b"of another"):
        folder = tmp_path / content.decode()
        stored = LocalStore(folder / "store")
        publish_folder(stored, model_folder(folder / "model", content), V1)
        remote: Any = Elsewhere(stored, lambda key: None)
        assert (version_folder(remote, cache, V1) / "model.bin").read_bytes() == content
