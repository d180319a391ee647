"""A record that one process writes again and again, in a store that overwrites nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from proofloop.errors import StoreError
from proofloop.runs.budget import TimeTaken
from proofloop.store import LocalStore
from proofloop.store.renewed import Renewed, newest

PREFIX = "runs/r1/times/"


class CutStore(LocalStore):
    """Stores what it is given, and then says that it failed while `is_cut` is set."""

    is_cut = False

    def put_if_absent(self, key: str, data: bytes, *, durable: bool = False) -> bool:
        done = super().put_if_absent(key, data, durable=durable)
        if self.is_cut:
            raise StoreError("the answer was lost")
        return done


def test_others_read_what_each_process_wrote_last(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    one, other = (Renewed(store, PREFIX, "time", kept=2) for _ in range(2))
    for seconds in range(12):
        one.write(TimeTaken(seconds=seconds))
    other.write(TimeTaken(seconds=0.5))
    found = dict(newest(store, PREFIX, TimeTaken))
    assert {process: taken.seconds for process, taken in found.items()} == {
        one.process: 11,
        other.process: 0.5,
    }
    assert [process for process, _ in newest(store, PREFIX, TimeTaken, but=one.process)] == [
        other.process
    ]
    assert len(list(store.list(PREFIX))) == 2 + 1
    one.delete()
    assert len(list(store.list(PREFIX))) == 1


@pytest.mark.parametrize("kept", [1, 2])
def test_a_write_whose_answer_was_lost_is_neither_read_again_nor_left_over(
    tmp_path: Path, kept: int
) -> None:
    store = CutStore(tmp_path)
    one = Renewed(store, PREFIX, "time", kept=kept)
    one.write(TimeTaken(seconds=1))
    store.is_cut = True
    with pytest.raises(StoreError):
        one.write(TimeTaken(seconds=2))
    store.is_cut = False
    for seconds in (3, 4, 5):
        one.write(TimeTaken(seconds=seconds))
    [(_, taken)] = newest(store, PREFIX, TimeTaken)
    assert taken.seconds == 5
    assert len(list(store.list(PREFIX))) == kept
