"""What every store promises, run on each; a store joins by saying how this process and another one
open it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Barrier, Thread

import pytest

from proofloop.errors import ConfigError, CorruptObject, NotFound, StoreError
from proofloop.schema.records import Problem
from proofloop.store import LocalStore, Store, find_record, get_record, put_record
from proofloop.store.minio import MinioStore
from tests.builders import label
from tests.integration.servers import S3, bucket_folder


@dataclass(frozen=True)
class Subject:
    """A store under test, and the Python expression that opens it in another process."""

    store: Store
    expression: str


@contextmanager
def local(tmp_path: Path) -> Iterator[Subject]:
    root = tmp_path / "store"
    yield Subject(LocalStore(root), f"LocalStore(Path({str(root)!r}))")


@contextmanager
def minio(s3: S3) -> Iterator[Subject]:
    """Parts of 100 kB, so that the larger objects of these tests have some."""
    with bucket_folder(s3) as (bucket, prefix):
        secure, host = s3.endpoint.startswith("https"), s3.endpoint.partition("://")[2]
        options = {
            "access_key": s3.access_key,
            "secret_key": s3.secret_key,
            "secure": secure,
            "part_bytes": 100_000,
        }
        store = MinioStore(host, bucket, prefix, **options)
        yield Subject(store, f"MinioStore({host!r}, {bucket!r}, {prefix!r}, **{options!r})")


SUBJECTS = {"local": local, "minio": minio}


@pytest.fixture(params=SUBJECTS)
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    argument = request.getfixturevalue("s3") if request.param == "minio" else tmp_path
    with SUBJECTS[request.param](argument) as one:
        yield one


@pytest.fixture
def store(subject: Subject) -> Store:
    return subject.store


def start(subject: Subject, code: str, *arguments: str) -> subprocess.Popen[str]:
    """Run code in another process, where `store` is the store."""
    head = (
        "import sys\nfrom pathlib import Path\n"
        "from proofloop.store import LocalStore\nfrom proofloop.store.minio import MinioStore\n"
    )
    program = f"{head}store = {subject.expression}\n{code}"
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True
    )


class TestStoreContract:
    def test_what_was_put_is_got(self, store: Store) -> None:
        data = bytes(range(256)) * 1000
        assert store.put_if_absent("runs/r/a.bin", data)
        assert store.get("runs/r/a.bin") == data
        assert b"".join(store.chunks("runs/r/a.bin")) == data
        assert store.exists("runs/r/a.bin")

    def test_the_first_writer_wins(self, store: Store) -> None:
        assert store.put_if_absent("a/k", b"first")
        assert not store.put_if_absent("a/k", b"second")
        assert not store.put_if_absent("a/k", b"third", durable=True)
        assert store.get("a/k") == b"first"

    def test_a_durable_object_is_as_any_other(self, store: Store) -> None:
        assert store.put_if_absent("a/b/c/d", b"x", durable=True)
        assert not store.put_if_absent("a/b/c/d", b"y", durable=True)
        assert (store.get("a/b/c/d"), list(store.list("a/"))) == (b"x", ["a/b/c/d"])

    @pytest.mark.parametrize("key", ["nothing", "a/nothing", "a", "a/k/below"])
    def test_what_is_not_there_is_not_found(self, store: Store, key: str) -> None:
        store.put_if_absent("a/k", b"x")
        assert not store.exists(key)
        for read in (store.get, lambda key: list(store.chunks(key))):
            with pytest.raises(NotFound, match=key):
                read(key)

    def test_an_object_without_bytes_cannot_be_written(self, store: Store) -> None:
        with pytest.raises(ValueError, match="a/k: an empty object"):
            store.put_if_absent("a/k", b"")
        assert list(store.list("a/")) == []

    @pytest.mark.parametrize(
        "key",
        ["", "/", "/etc/passwd", "../x", "a/../../x", "a/..", "a//b", "a/", ".", "a/./b", "a\0b"],
    )
    def test_what_is_no_key_is_refused(self, store: Store, key: str) -> None:
        for call in (
            lambda: store.put_if_absent(key, b"x"),
            lambda: store.get(key),
            lambda: store.exists(key),
        ):
            with pytest.raises(StoreError, match="is not a valid key") as caught:
                call()
            assert not isinstance(caught.value, NotFound)

    def test_a_listing_is_sorted_by_whole_keys_and_has_its_prefix_only(self, store: Store) -> None:
        keys = [
            "r/a.json",
            "r/a/1",
            "r/a-1/x",
            "r/a/b/c",
            "r/B",
            "r/a0",
            "r/10",
            "r/9",
            "r2/a",
            "r",
        ]
        for key in keys[:-1]:
            store.put_if_absent(key, b"x")
        assert list(store.list("r/")) == sorted(key for key in keys if key.startswith("r/"))
        assert list(store.list("r/a/")) == ["r/a/1", "r/a/b/c"]
        assert list(store.list("none/")) == list(store.list("r/10/")) == []

    def test_a_listing_holds_nothing_that_cannot_be_got(self, store: Store) -> None:
        with ThreadPoolExecutor(4) as pool:
            puts = [
                pool.submit(store.put_if_absent, f"r/{n:04d}", b"x" * 10_000) for n in range(400)
            ]
            while not all(put.done() for put in puts):
                assert {len(store.get(key)) for key in store.list("r/")} <= {10_000}
        assert list(store.list("r/")) == [f"r/{n:04d}" for n in range(400)]

    def test_deleting_a_prefix_removes_what_is_below_it_and_nothing_else(
        self, store: Store
    ) -> None:
        for key in ("r/a/1", "r/a/b/2", "r/ab", "r/a.json"):
            store.put_if_absent(key, b"x")
        assert store.delete_prefix("r/a/") == 2
        assert list(store.list("r/")) == ["r/a.json", "r/ab"]
        assert store.delete_prefix("r/a/") == store.delete_prefix("r/ab/") == 0
        assert store.put_if_absent("r/a/1", b"again")
        assert store.get("r/a/1") == b"again"

    def test_one_of_eight_racing_threads_wins_and_all_read_the_same(self, store: Store) -> None:
        gate = Barrier(8)

        def race(number: int) -> list[tuple[bool, bytes]]:
            found = []
            for turn in range(50):
                gate.wait()
                won = store.put_if_absent(f"race/{turn % 5}/{turn}", bytes([number]) * 1000)
                found.append((won, store.get(f"race/{turn % 5}/{turn}")))
            return found

        with ThreadPoolExecutor(8) as pool:
            turns = list(zip(*pool.map(race, range(1, 9)), strict=True))
        for turn in turns:
            assert sum(won for won, _ in turn) == 1
            winner = next(number for number, (won, _) in enumerate(turn, 1) if won)
            assert {data for _, data in turn} == {bytes([winner]) * 1000}

    def test_one_of_racing_processes_wins_each_key(self, subject: Subject) -> None:
        code = (
            "me = sys.argv[1].encode()\n"
            "print('ready', flush=True)\n"
            "while not store.exists('go'): pass\n"
            "print([n for n in range(100) if store.put_if_absent(f'race/{n}', me * 500)])"
        )
        racers = {name: start(subject, code, name) for name in "ABCD"}
        assert [racer.stdout.readline() for racer in racers.values() if racer.stdout] == [
            "ready\n"
        ] * 4
        subject.store.put_if_absent("go", b"!")
        won = {name: json.loads(racer.communicate(timeout=60)[0]) for name, racer in racers.items()}
        assert sorted(number for numbers in won.values() for number in numbers) == list(range(100))
        for name, numbers in won.items():
            assert all(
                subject.store.get(f"race/{number}") == name.encode() * 500 for number in numbers
            )

    def test_a_process_killed_while_it_writes_leaves_only_whole_objects(
        self, subject: Subject
    ) -> None:
        code = (
            "from itertools import count\n"
            "for n in count():\n"
            "    store.put_if_absent(f'r/{n % 7}/{n:06d}', bytes([n % 256 or 1]) * 300_000)\n"
            "    n == 5 and print('writing', flush=True)\n"
        )
        for _ in range(3):
            writer = start(subject, code)
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(0.05)
            writer.send_signal(signal.SIGKILL)
            assert writer.wait(10) == -signal.SIGKILL
            writer.stdout.close()
            found = list(subject.store.list("r/"))
            assert len(found) >= 5
            for key in found:
                assert subject.store.get(key) == bytes([int(key[-6:]) % 256 or 1]) * 300_000
            assert subject.store.delete_prefix("r/") == len(found)

    def test_records_are_kept_whole_and_the_first_one_is_returned(self, store: Store) -> None:
        first, second = label(1.0), label(0.0, outcome="label", kind="rejected_upheld")
        assert put_record(store, "l/1", first) == first
        assert put_record(store, "l/1", second) == first
        assert (
            get_record(store, "l/1", type(first)) == find_record(store, "l/1", type(first)) == first
        )
        assert find_record(store, "l/2", type(first)) is None

    def test_a_record_of_another_kind_is_corrupt_and_not_absent(self, store: Store) -> None:
        store.put_if_absent("l/1", b'{"id": 3}')
        for read in (get_record, find_record):
            with pytest.raises(CorruptObject, match="l/1 is not a valid Problem: "):
                read(store, "l/1", Problem)


# -- the local folder
# --------------------------------------------------------------------------------------------------


def test_a_file_without_bytes_counts_as_absent(tmp_path: Path) -> None:
    """As a power cut may leave one behind."""
    store = LocalStore(tmp_path)
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "k").touch()
    assert not store.exists("r/k")
    assert list(store.list("r/")) == []
    with pytest.raises(NotFound):
        store.get("r/k")
    with store.only_here("repair"):  # a run may be called so
        assert store.put_if_absent("r/k", b"x")
    assert not store.put_if_absent("r/k", b"y")
    assert store.get("r/k") == b"x"


def test_one_of_racing_threads_repairs_a_file_without_bytes(tmp_path: Path) -> None:
    store, gate = LocalStore(tmp_path), Barrier(8)
    (tmp_path / "r").mkdir()
    for turn in range(100):
        (tmp_path / "r" / str(turn)).touch()

    def race(number: int) -> list[bool]:
        won = []
        for turn in range(100):
            gate.wait()
            won.append(store.put_if_absent(f"r/{turn}", bytes([number])))
        return won

    with ThreadPoolExecutor(8) as pool:
        turns = zip(*pool.map(race, range(1, 9)), strict=True)
        winners = [[number for number, won in enumerate(turn, 1) if won] for turn in turns]
    assert [[*store.get(f"r/{turn}")] for turn in range(100)] == winners


def test_nothing_is_left_where_objects_are_being_written(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for n in range(5):
        store.put_if_absent(f"r/{n % 2}", b"x", durable=True)
    assert list((tmp_path / ".tmp").iterdir()) == []
    with pytest.raises(StoreError, match="is not a valid key"):
        store.put_if_absent(".tmp/x", b"x")


def test_a_full_disk_is_said_and_leaves_nothing_behind(tmp_path: Path) -> None:
    code = (
        "import resource, signal\n"
        "from proofloop.errors import StoreError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "for _ in range(3):\n"
        "    try: store.put_if_absent('a/k', bytes(range(1, 101)) * 1000)\n"
        "    except StoreError as error: print(error)\n"
    )
    writer = start(Subject(LocalStore(tmp_path), f"LocalStore(Path({str(tmp_path)!r}))"), code)
    assert (
        writer.communicate(timeout=30)[0].count("cannot write a/k: [Errno 27] File too large") == 3
    )
    assert list((tmp_path / ".tmp").iterdir()) == []


def test_what_a_killed_writer_left_is_swept_and_what_a_living_one_writes_is_not(
    tmp_path: Path,
) -> None:
    store = LocalStore(tmp_path)
    code = (
        "import os, time\n"
        "os.fsync = lambda file: (print('written', flush=True), time.sleep(60))\n"
        "store.put_if_absent('a/k', b'x' * 300_000, durable=True)\n"
    )
    writer = start(Subject(store, f"LocalStore(Path({str(tmp_path)!r}))"), code)
    assert writer.stdout is not None
    with writer.stdout as said:
        said.readline()
    (left,) = (tmp_path / ".tmp").iterdir()

    def is_there_after_another_start(age_s: float) -> bool:
        os.utime(left, (time.time() - age_s,) * 2)
        LocalStore(tmp_path)
        return left.exists()

    assert is_there_after_another_start(3600)
    writer.kill()
    writer.wait(10)
    assert is_there_after_another_start(0)
    assert not is_there_after_another_start(3600)


def test_a_lock_is_not_swept(tmp_path: Path) -> None:
    lock = tmp_path / ".tmp" / "run.lock"
    with LocalStore(tmp_path).only_here("run"):
        os.utime(lock, (0, 0))
    LocalStore(tmp_path)
    assert lock.exists()


def test_two_stores_of_one_folder_are_one(tmp_path: Path) -> None:
    one, other = LocalStore(tmp_path), LocalStore(tmp_path)
    assert one.put_if_absent("a", b"1")
    assert not other.put_if_absent("a", b"2")
    assert other.get("a") == b"1"


def test_a_forked_child_does_not_write_into_its_parents_files(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    children = []
    for number in range(3):
        child = os.fork()
        if child == 0:
            wins = all(
                store.put_if_absent(f"r/{number}/{n}", bytes([number + 1]) * 20_000)
                for n in range(100)
            )
            os._exit(0 if wins else 1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert all(
        store.get(f"r/{number}/{n}") == bytes([number + 1]) * 20_000
        for number in range(3)
        for n in range(100)
    )


def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for root in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nothing")):
        with pytest.raises(
            ConfigError, match=rf"^cannot write to the store {root}: .+\nhint: choose a folder"
        ):
            LocalStore(root)


def test_a_store_whose_folder_went_away_says_so(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    (tmp_path / "store" / ".tmp").rmdir()
    with pytest.raises(StoreError, match="cannot write a/k: "):
        store.put_if_absent("a/k", b"x")


def test_a_folder_that_cannot_be_looked_into_is_an_error_and_not_empty(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    for look in (store.exists, lambda key: list(store.list(f"{key}/"))):
        with pytest.raises(StoreError, match=r"cannot (read the size of|list) .*loop/k"):
            look("loop/k")


# -- S3
# --------------------------------------------------------------------------------------------------


class S3Double(BaseHTTPRequestHandler):
    """An S3 server of a few lines that misbehaves as its owner says; what works is tested on a real
    one.
    """

    server: S3Server

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if "If-None-Match" in self.headers and self.path in self.server.objects:
            return self.refuse(412, "PreconditionFailed")
        if refusal := self.server.refusal(self):
            return self.refuse(*refusal)
        self.server.objects[self.path] = data
        self.answer(200, b"")

    def do_GET(self) -> None:
        """Only listings are asked for: there is nothing."""
        self.answer(200, self.server.listing)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, b"<DeleteResult></DeleteResult>")

    def refuse(self, status: int, code: str) -> None:
        self.answer(status, f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode())

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("ETag", '"x"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None: ...


class S3Server(ThreadingHTTPServer):
    """`refusals` are the first answers to PUT, status and code; the last one is repeated if
    `for_ever`.
    """

    def __init__(
        self, *refusals: tuple[int, str], for_ever: bool = False, only_conditions: bool = False
    ) -> None:
        super().__init__(("127.0.0.1", 0), S3Double)
        self.objects: dict[str, bytes] = {}
        self.listing = (
            b"<ListBucketResult><Name>b</Name><IsTruncated>false</IsTruncated></ListBucketResult>"
        )
        self._refusals, self._for_ever, self._only_conditions = (
            list(refusals),
            for_ever,
            only_conditions,
        )
        Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def refusal(self, request: BaseHTTPRequestHandler) -> tuple[int, str] | None:
        if not self._refusals or (self._only_conditions and "If-None-Match" not in request.headers):
            return None
        return self._refusals[0] if self._for_ever else self._refusals.pop(0)

    def store(self, bucket: str = "bucket") -> MinioStore:
        host = f"127.0.0.1:{self.server_port}"
        return MinioStore(
            host, bucket, access_key="a", secret_key="s", secure=False, first_pause_s=0.01
        )

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


def test_a_server_that_is_not_ready_yet_is_away_and_its_keys_are_not_blamed() -> None:
    with (
        S3Server((503, "XMinioServerNotInitialized"), for_ever=True) as server,
        pytest.raises(StoreError, match="is unavailable: XMinioServerNotInitialized"),
    ):
        server.store()


@pytest.mark.parametrize(
    "refusal",
    [
        (429, "TooManyRequests"),
        (429, "SlowDown"),
        (503, "SlowDown"),
        (400, "SlowDown"),
        (429, "Anything"),
    ],
)
def test_a_server_that_asks_to_slow_down_is_asked_again(refusal: tuple[int, str]) -> None:
    with S3Server(refusal, refusal) as server:
        assert server.store().put_if_absent("a/k", b"x")


def test_a_server_that_never_stops_asking_to_slow_down_is_away() -> None:
    with (
        S3Server((429, "SlowDown"), for_ever=True) as server,
        pytest.raises(StoreError, match="is unavailable: SlowDown") as caught,
    ):
        server.store()
    assert not isinstance(caught.value, ConfigError)


@pytest.mark.parametrize("refusal", [(501, "NotImplemented"), (400, "InvalidArgument")])
def test_a_server_without_conditional_writes_is_called_so(refusal: tuple[int, str]) -> None:
    problem = (
        rf"has no conditional writes: it refuses If-None-Match on PUT: {refusal[1]} no\nhint: use"
        r" .*Ceph RGW"
    )
    with (
        S3Server(refusal, for_ever=True, only_conditions=True) as server,
        pytest.raises(ConfigError, match=problem),
    ):
        server.store()


def test_a_server_that_refuses_every_write_is_not_blamed_for_conditions() -> None:
    with (
        S3Server((400, "InvalidArgument"), for_ever=True) as server,
        pytest.raises(
            ConfigError, match="refuses: InvalidArgument no\nhint: correct PROOFLOOP_S3_ACCESS_KEY"
        ),
    ):
        server.store()


@pytest.mark.parametrize(
    "bucket", ["", "a", "a/b", "with space", "x" * 64, "10.0.0.1", "a..b", "a_b/"]
)
def test_a_name_that_no_bucket_can_have_is_refused_by_its_variable(bucket: str) -> None:
    with S3Server() as server, pytest.raises(ConfigError) as caught:
        server.store(bucket)
    assert f"PROOFLOOP_S3_BUCKET = {bucket!r}" in caught.value.problem
    assert "3 to 63 lower-case letters, digits, dots and hyphens" in caught.value.hint


@pytest.mark.parametrize(
    "listing", [b"<html>Sign in", b"<ListBucketResult></ListBucketResult>", b""]
)
def test_a_server_whose_answer_is_none_of_S3_is_away(listing: bytes) -> None:
    with (
        S3Server() as server,
        pytest.raises(StoreError, match="is unavailable: its answer cannot be read: "),
    ):
        server.listing = listing
        server.store()
