"""The contract of a store, run on each, and further tests of each."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Barrier, Thread

import pytest
from minio.credentials import StaticProvider

from proofloop.errors import ConfigError, InvalidKey, NotFound, StoreError
from proofloop.store import LocalStore
from proofloop.store.minio import MinioStore
from proofloop.testing.store import StoreContract, StoreSubject
from tests.integration.servers import S3, bucket_folder


def folder_subject(root: Path) -> StoreSubject:
    code = "from pathlib import Path\nfrom proofloop.store import LocalStore"
    return StoreSubject(LocalStore(root), f"{code}\nstore = LocalStore(Path({str(root)!r}))")


@contextmanager
def local(tmp_path: Path) -> Iterator[StoreSubject]:
    yield folder_subject(tmp_path / "store")


@contextmanager
def minio(s3: S3) -> Iterator[StoreSubject]:
    """Parts of 100 kB, so that the larger objects of these tests have some."""
    with bucket_folder(s3) as (bucket, prefix):
        secure, host = s3.endpoint.startswith("https"), s3.endpoint.partition("://")[2]
        options = {"secure": secure, "part_bytes": 100_000}
        keys = (s3.access_key, s3.secret_key)
        store = MinioStore(host, bucket, prefix, keys=StaticProvider(*keys), **options)
        code = (
            "from minio.credentials import StaticProvider\n"
            "from proofloop.store.minio import MinioStore\n"
            f"store = MinioStore({host!r}, {bucket!r}, {prefix!r}, keys=StaticProvider(*{keys!r}),"
            f" **{options!r})"
        )
        yield StoreSubject(store, code)


SUBJECTS = {"local": local, "minio": minio}


@contextmanager
def open_subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreSubject]:
    """The store that the fixture's parameter names."""
    argument = request.getfixturevalue("s3") if request.param == "minio" else tmp_path
    with SUBJECTS[request.param](argument) as one:
        yield one


class TestStoreContract(StoreContract):
    @pytest.fixture(params=SUBJECTS)
    def subject(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreSubject]:
        with open_subject(request, tmp_path) as one:
            yield one


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


def test_files_that_programs_leave_in_a_folder_are_no_objects(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put_if_absent("specs/run.json", b"x")
    for folder in (tmp_path, tmp_path / "specs"):
        (folder / ".DS_Store").write_bytes(b"Bud1")
    assert list(store.list("specs/")) == ["specs/run.json"]
    assert store.delete_prefix("specs/") == 1
    assert not (tmp_path / "specs").exists()


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
    writer = folder_subject(tmp_path).start(code)
    assert (
        writer.communicate(timeout=30)[0].count("cannot write a/k: [Errno 27] File too large") == 3
    )
    assert list((tmp_path / ".tmp").iterdir()) == []


def test_what_a_killed_writer_left_is_swept_and_what_a_living_one_writes_is_not(
    tmp_path: Path,
) -> None:
    code = (
        "import os, time\n"
        "os.fsync = lambda file: (print('written', flush=True), time.sleep(60))\n"
        "store.put_if_absent('a/k', b'x' * 300_000, durable=True)\n"
    )
    writer = folder_subject(tmp_path).start(code)
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
        self._refusals = list(refusals)
        self._for_ever = for_ever
        self._only_conditions = only_conditions
        Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def refusal(self, request: BaseHTTPRequestHandler) -> tuple[int, str] | None:
        if not self._refusals or (self._only_conditions and "If-None-Match" not in request.headers):
            return None
        return self._refusals[0] if self._for_ever else self._refusals.pop(0)

    def store(self, bucket: str = "bucket") -> MinioStore:
        host = f"127.0.0.1:{self.server_port}"
        return MinioStore(
            host, bucket, keys=StaticProvider("a", "s"), secure=False, first_pause_s=0.01
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
    ("code", "hint"),
    [
        ("RequestTimeTooSkewed", "correct this machine's clock"),
        ("QuotaExceeded", "raise the quota"),
        ("SignatureDoesNotMatch", "correct PROOFLOOP_S3_ACCESS_KEY"),
    ],
)
def test_keys_are_blamed_only_if_the_refusal_is_about_keys(code: str, hint: str) -> None:
    with (
        S3Server((403, code), for_ever=True) as server,
        pytest.raises(ConfigError, match=f"refuses a test write: {code} no\nhint: {hint}"),
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


@pytest.mark.parametrize("key", ["x" * 1025, "a\n", "\ud800"])
def test_a_key_that_s3_cannot_hold_is_refused_before_the_server_is_asked(key: str) -> None:
    with S3Server() as server:
        store = server.store()
        server.refusal = lambda _: pytest.fail("asked")  # type: ignore[method-assign]
        with pytest.raises(InvalidKey):
            store.put_if_absent(key, b"x")


def test_a_folder_that_cannot_be_written_can_be_read(tmp_path: Path) -> None:
    LocalStore(tmp_path).put_if_absent("runs/a", b"x")
    shutil.rmtree(tmp_path / ".tmp")
    (tmp_path / ".tmp").touch()  # as root, a folder without write permission can be written
    with pytest.raises(ConfigError, match="cannot write to the store"):
        LocalStore(tmp_path)
    store = LocalStore(tmp_path, for_reading=True)
    assert store.get("runs/a") == b"x" and [*store.list("runs")] == ["runs/a"]
    with pytest.raises(StoreError, match="cannot write runs/b"):
        store.put_if_absent("runs/b", b"x")


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
        rf"conditional writes: it refuses If-None-Match on PUT: {refusal[1]} no\nhint: use"
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
            ConfigError,
            match="refuses a test write: InvalidArgument no\nhint: correct PROOFLOOP_S3_ACCESS_KEY",
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
        pytest.raises(StoreError, match="is unavailable: the response is not S3's: "),
    ):
        server.listing = listing
        server.store()
