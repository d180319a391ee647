"""The contract of a store: each object is written once, whole, by one of any number of writers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier

import pytest

from proofloop.errors import CorruptObject, InvalidKey, NotFound
from proofloop.schema.records import Problem
from proofloop.store import Store, find_record, get_record, put_record


@dataclass(frozen=True)
class StoreSubject:
    """A store under test, and the Python code by which another process opens it as `store`."""

    store: Store
    opening: str

    def start(self, code: str, *arguments: str) -> subprocess.Popen[str]:
        """Run code in another process, after the lines that open the store there."""
        program = f"import sys\n{self.opening}\n{code}"
        return subprocess.Popen(
            [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True
        )


class StoreContract:
    """Override `subject` with a fixture that opens an empty store and removes it after the test."""

    @pytest.fixture
    def subject(self) -> Iterator[StoreSubject]:
        raise NotImplementedError("override `subject` with your store")

    @pytest.fixture
    def store(self, subject: StoreSubject) -> Store:
        return subject.store

    def test_a_stored_object_is_read_back(self, store: Store) -> None:
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

    def test_a_durable_object_is_like_any_other(self, store: Store) -> None:
        assert store.put_if_absent("a/b/c/d", b"x", durable=True)
        assert not store.put_if_absent("a/b/c/d", b"y", durable=True)
        assert (store.get("a/b/c/d"), list(store.list("a/"))) == (b"x", ["a/b/c/d"])

    @pytest.mark.parametrize("key", ["nothing", "a/nothing", "a", "a/k/below"])
    def test_an_absent_object_is_not_found(self, store: Store, key: str) -> None:
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
        [
            *("", "/", "/etc/passwd", "../x", "a/../../x", "a/..", "a//b", "a/", ".", "a/./b"),
            *(".tmp/x", "a/.b"),
            *("a\0b", "a\nb", "a/\ud800"),
        ],
    )
    def test_an_invalid_key_is_refused(self, store: Store, key: str) -> None:
        for call in (
            lambda: store.put_if_absent(key, b"x"),
            lambda: store.get(key),
            lambda: store.exists(key),
        ):
            with pytest.raises(InvalidKey, match="is not a valid key"):
                call()

    def test_a_key_that_is_too_long_is_refused(self, store: Store) -> None:
        key = "/".join(["x" * 200] * 25)
        with pytest.raises(InvalidKey):
            store.put_if_absent(key, b"x")

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

    def test_every_listed_object_can_be_read(self, store: Store) -> None:
        with ThreadPoolExecutor(4) as pool:
            puts = [
                pool.submit(store.put_if_absent, f"r/{n:04d}", b"x" * 10_000) for n in range(400)
            ]
            while not all(put.done() for put in puts):
                assert {len(store.get(key)) for key in store.list("r/")} <= {10_000}
        assert list(store.list("r/")) == [f"r/{n:04d}" for n in range(400)]

    def test_deleting_a_prefix_removes_the_objects_below_it_alone(self, store: Store) -> None:
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

    def test_one_of_racing_processes_wins_each_key(self, subject: StoreSubject) -> None:
        code = (
            "me = sys.argv[1].encode()\n"
            "print('ready', flush=True)\n"
            "while not store.exists('go'): pass\n"
            "print([n for n in range(100) if store.put_if_absent(f'race/{n}', me * 500)])"
        )
        racers = {name: subject.start(code, name) for name in "ABCD"}
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
        self, subject: StoreSubject
    ) -> None:
        code = (
            "from itertools import count\n"
            "for n in count():\n"
            "    store.put_if_absent(f'r/{n % 7}/{n:06d}', bytes([n % 256 or 1]) * 300_000)\n"
            "    n == 5 and print('writing', flush=True)\n"
        )
        for _ in range(3):
            writer = subject.start(code)
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

    def test_the_first_record_of_a_key_is_returned(self, store: Store) -> None:
        first, second = (Problem(id="p", question=f"Is {n} even?") for n in (1, 2))
        assert put_record(store, "p/1", first) == first
        assert put_record(store, "p/1", second) == first
        assert (
            get_record(store, "p/1", type(first)) == find_record(store, "p/1", type(first)) == first
        )
        assert find_record(store, "p/2", type(first)) is None

    def test_a_record_of_another_kind_is_corrupt_and_not_absent(self, store: Store) -> None:
        store.put_if_absent("p/1", b'{"id": 3}')
        for read in (get_record, find_record):
            with pytest.raises(CorruptObject, match="p/1 is not a valid Problem: "):
                read(store, "p/1", Problem)
