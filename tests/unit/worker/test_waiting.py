"""Messages that wait for their calls sleep; one thread wakes those that must not wait on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import structlog

from proofloop.engine.base import FutureCall, Generation, GenerationRequest
from proofloop.errors import Retry, StoreError
from proofloop.method.prompts import Prompt
from proofloop.schema.ids import critique_name
from proofloop.store import LocalStore
from proofloop.worker.calls import waiting
from proofloop.worker.calls.model_call import ModelCall, replies_of
from proofloop.worker.calls.model_request import ModelRequest
from proofloop.worker.calls.waiting import Cancelled, Wait, WaitingMessages
from proofloop.worker.tools import Tools
from tests.builders import PROOF, RUN, workplace
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("quiet_log")


class WatchedStore(LocalStore):
    """Remembers the keys that were looked up. It can be away."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.looked_up: list[str] = []
        self.is_away = False
        self.has_bug = False

    def exists(self, key: str) -> bool:
        self.looked_up.append(key)
        if self.is_away:
            raise StoreError("away")
        if self.has_bug:
            raise KeyError("a bug of another package's store")
        return super().exists(key)


class Sleepers:
    """Messages that wait, each in a thread of its own."""

    def __init__(self, store: LocalStore, count: int, key: str) -> None:
        self.cancelling = threading.Event()
        self.messages = WaitingMessages(store, self.cancelling)
        self.waits = [Wait(key) for _ in range(count)]
        self._pool = ThreadPoolExecutor(count)
        self.ended = [self._pool.submit(self._sleep, wait) for wait in self.waits]
        assert wait_until(lambda: len(self.messages._waits) == count, 20)

    def _sleep(self, wait: Wait) -> int:
        with self.messages.wait(wait):
            return wait.next()

    def close(self) -> None:
        for wait in self.waits:
            wait.wake(0)
        self._pool.shutdown()


def watchers() -> int:
    return sum(thread.name == "waiting" for thread in threading.enumerate())


@pytest.fixture(autouse=True)
def no_watcher() -> Iterator[None]:
    """Each test begins without the thread, which ends when nothing waits."""
    assert wait_until(lambda: watchers() == 0, 60)
    yield
    assert wait_until(lambda: watchers() == 0, 60)


def test_a_stored_record_wakes_the_messages_that_it_makes_useless_at_once(tmp_path: Path) -> None:
    sleepers = Sleepers(WatchedStore(tmp_path), 2, "label")
    try:
        sleepers.messages.end("another label")
        assert not any(each.done() for each in sleepers.ended)
        sleepers.messages.end("label")
        errors = [each.exception(timeout=60) for each in sleepers.ended]
        assert all(isinstance(error, Cancelled) for error in errors)
    finally:
        sleepers.close()


def test_one_thread_looks_up_a_key_once_for_all_that_wait_for_it(tmp_path: Path) -> None:
    store = WatchedStore(tmp_path)
    sleepers = Sleepers(store, 300, "label")
    try:
        assert wait_until(lambda: len(store.looked_up) >= 2, 10)
        assert watchers() == 1
        assert len(store.looked_up) <= 4
        store.put_if_absent("label", b"{}")
        for ended in sleepers.ended:
            with pytest.raises(Cancelled):
                ended.result(60)
    finally:
        sleepers.close()


def test_a_stop_wakes_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "LOOK_S", 600.0)  # the stop itself must wake them
    sleepers = Sleepers(LocalStore(tmp_path), 300, "")
    sleepers.cancelling.set()
    for ended in sleepers.ended:
        with pytest.raises(Retry, match="stopping"):
            ended.result(60)
    sleepers.close()


def test_a_message_that_begins_to_wait_after_the_stop_is_woken(tmp_path: Path) -> None:
    stopped = threading.Event()
    stopped.set()
    wait = Wait()
    with (
        WaitingMessages(LocalStore(tmp_path), stopped).wait(wait),
        pytest.raises(Retry, match="stopping"),
    ):
        wait.next()


def test_a_store_that_is_away_ends_no_wait(tmp_path: Path) -> None:
    store = WatchedStore(tmp_path)
    store.is_away = True
    with structlog.testing.capture_logs() as logs:
        sleepers = Sleepers(store, 2, "label")
        assert wait_until(lambda: bool(store.looked_up), 10)
        sleepers.waits[0].wake(7)
        assert sleepers.ended[0].result(60) == 7
        assert not sleepers.ended[1].done()
        sleepers.close()
    assert "store_away" in [line["event"] for line in logs]


def test_after_an_unexpected_error_a_stop_still_wakes_all(tmp_path: Path, quiet_log: None) -> None:
    store = WatchedStore(tmp_path)
    store.has_bug = True
    sleepers = Sleepers(store, 2, "label")
    assert wait_until(lambda: bool(store.looked_up), 60)
    sleepers.cancelling.set()
    for ended in sleepers.ended:
        with pytest.raises(Retry, match="stopping"):
            ended.result(60)
    sleepers.close()


def test_what_nothing_can_make_unnecessary_is_never_looked_up(tmp_path: Path) -> None:
    store = WatchedStore(tmp_path)
    sleepers = Sleepers(store, 2, "")
    time.sleep(1.5)
    assert store.looked_up == []
    sleepers.close()


# -- several calls
# --------------------------------------------------------------------------------------------------


class HeldCall(FutureCall):
    """A call that the test answers."""

    is_cancelled = False

    def answer(self, text: str) -> None:
        self.future.set_result(Generation(text, "stop", 10, 20, 0.5, "v-1"))

    def cancel(self) -> None:
        self.is_cancelled = True


class HeldEngine:
    def __init__(self) -> None:
        self.calls: list[HeldCall] = []

    def submit(self, request: GenerationRequest) -> HeldCall:
        self.calls.append(HeldCall())
        return self.calls[-1]

    def close(self) -> None: ...


def ask(tools: Tools, count: int) -> list[ModelCall]:
    prompt = Prompt(text="Check it.", digest="0")
    requests = [
        ModelRequest(RUN, "verifier", "v-1", prompt, PROOF, critique_name(number))
        for number in range(count)
    ]
    return [ModelCall(request, tools) for request in requests]


def first_reply(tools: Tools, calls: list[ModelCall]) -> Future[str]:
    """The text of the reply that comes first."""
    found: Future[str] = Future()

    def wait() -> None:
        try:
            found.set_result(next(replies_of(calls))[1].text)
        except Exception as error:
            found.set_exception(error)

    threading.Thread(target=wait, daemon=True).start()
    return found


def test_a_reply_is_there_as_soon_as_its_call_has_ended_whichever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "LOOK_S", 600.0)  # the thread that looks brings no reply in time
    engine = HeldEngine()
    tools = workplace(tmp_path, engine)
    found = first_reply(tools, ask(tools, 8))
    time.sleep(0.3)
    engine.calls[5].answer("the sixth")
    assert found.result(60) == "the sixth"
    tools.shutdown.stop("the test")


def test_replies_that_have_come_are_given_before_the_process_stops(tmp_path: Path) -> None:
    engine = HeldEngine()
    tools = workplace(tmp_path, engine)
    calls = ask(tools, 3)
    engine.calls[1].answer("paid")
    tools.shutdown.stop("asked to")
    replies = replies_of(calls)
    assert next(replies)[1].text == "paid"
    with pytest.raises(Retry, match="stopping"):
        next(replies)
    assert [call.is_cancelled for call in engine.calls] == [True, False, True]
