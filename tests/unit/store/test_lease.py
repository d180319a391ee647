"""A lease in a store that is not a local folder: what its holder learns when the store is away."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from proofloop.errors import ConfigError, StoreError
from proofloop.schema import keys
from proofloop.store import LocalStore
from proofloop.store.lease import Lease, LeaseTimes, RenewedLease, held
from tests.waiting import wait_until

TIMES = LeaseTimes(last_s=2.0, renew_s=0.05, away_s=0.02)
SLOW = LeaseTimes(last_s=0.3, renew_s=60.0)


class RemoteStore:
    """A store on a server: the folder's objects, while it is not away."""

    def __init__(self, folder: Path) -> None:
        self._folder = LocalStore(folder)
        self.is_away = False

    @property
    def _reached(self) -> LocalStore:
        if self.is_away:
            raise StoreError("the store is unavailable")
        return self._folder

    def __str__(self) -> str:
        return "remote"

    def put_if_absent(self, key: str, data: bytes, *, durable: bool = False) -> bool:
        return self._reached.put_if_absent(key, data, durable=durable)

    def get(self, key: str) -> bytes:
        return self._reached.get(key)

    def chunks(self, key: str) -> Iterator[bytes]:
        return self._reached.chunks(key)

    def exists(self, key: str) -> bool:
        return self._reached.exists(key)

    def list(self, prefix: str) -> Iterator[str]:
        return self._reached.list(prefix)

    def delete_prefix(self, prefix: str) -> int:
        return self._reached.delete_prefix(prefix)


def is_valid(lease: Lease) -> bool:
    try:
        lease.check()
    except StoreError:
        return False
    return True


def loss(lease: Lease) -> str:
    """Why the lease is lost for good."""
    lost: list[str] = []

    def is_lost() -> bool:
        try:
            lease.check()
        except StoreError:
            return False
        except ConfigError as error:
            lost.append(str(error))
        return bool(lost)

    assert wait_until(is_lost)
    return lost[0]


def taken(store: RemoteStore, times: LeaseTimes) -> RenewedLease:
    lease = RenewedLease(store, "small", "the small run", times)
    lease.take()
    return lease


def test_a_holder_is_told_that_its_lease_expired_and_that_it_is_valid_again(
    tmp_path: Path,
) -> None:
    store = RemoteStore(tmp_path)
    with (
        structlog.testing.capture_logs() as logs,
        held(store, "small", "the small run", TIMES) as lease,
    ):
        store.is_away = True
        time.sleep(TIMES.last_s / 2)
        lease.check()
        assert wait_until(lambda: not is_valid(lease))
        with pytest.raises(StoreError, match=r"the lease on the small run expired \d+ s ago: the"):
            lease.check()
        store.is_away = False
        assert wait_until(lambda: is_valid(lease))
    assert [line["event"] for line in logs] == ["lease_not_renewed"], "once per outage"


def test_a_lease_that_another_process_has_had_is_lost_for_good(tmp_path: Path) -> None:
    store = RemoteStore(tmp_path)
    lease = taken(store, LeaseTimes(last_s=0.3, renew_s=0.01))
    assert wait_until(lambda: not is_valid(lease))
    with held(store, "small", "the small run", TIMES):
        pass
    lease.keep(threading.Event())  # it ends, because there is nothing left to renew
    assert "has lost its lease on the small run in remote: it now belongs to process" in loss(lease)
    taken(store, TIMES).check()


def test_a_refusal_says_when_a_killed_holders_lease_ends(tmp_path: Path) -> None:
    store = RemoteStore(tmp_path)
    taken(store, LeaseTimes(last_s=40.0))
    with pytest.raises(ConfigError) as caught:
        taken(store, SLOW)
    assert "; if it was killed, its lease ends by itself at " in caught.value.hint
    assert caught.value.hint.endswith(("(40 s from now)", "(39 s from now)"))


def test_a_suspended_writer_does_not_get_the_lease_by_a_number_that_was_deleted(
    tmp_path: Path,
) -> None:
    """It listed the chain, was suspended, and writes the next number after others went on."""
    store = RemoteStore(tmp_path)
    suspended = taken(store, SLOW)
    listed = suspended._newest()
    time.sleep(SLOW.last_s)
    with held(store, "small", "the small run", TIMES):
        assert wait_until(lambda: not store.exists(keys.holder("small", listed[0] + 1)))
        assert suspended._add(listed[0] + 1, 60.0).process != listed[1].process


def test_a_lease_whose_records_were_deleted_is_lost(tmp_path: Path) -> None:
    store = RemoteStore(tmp_path)
    with held(store, "small", "the small run", TIMES) as lease:
        store.delete_prefix(keys.holders("small"))
        assert "belongs to no process, because its records were deleted" in loss(lease)


def test_a_holder_whose_last_record_was_not_written_is_awaited(tmp_path: Path) -> None:
    store = RemoteStore(tmp_path)
    with held(store, "small", "the small run", TIMES):
        store.is_away = True
    store.is_away = False
    with pytest.raises(ConfigError, match="another process is working on the small run"):
        taken(store, SLOW)
    time.sleep(TIMES.last_s)
    taken(store, SLOW).check()
