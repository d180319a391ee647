"""One thread at a time handles messages, except while its message waits for a model."""

from __future__ import annotations

import threading

import pytest

from proofloop.worker import turn as module
from proofloop.worker.calls.waiting import Wait
from proofloop.worker.turn import Turn


def in_thread(turn: Turn, begun: threading.Event) -> threading.Thread:
    """A thread that sets `begun` once it has its turn."""

    def work() -> None:
        with turn.taken():
            begun.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_a_second_thread_waits_for_its_turn() -> None:
    turn, begun = Turn(), threading.Event()
    with turn.taken():
        thread = in_thread(turn, begun)
        assert not begun.wait(0.1)
    assert begun.wait(5)
    thread.join(5)


def test_a_message_that_waits_for_its_model_leaves_its_turn() -> None:
    turn, begun, wait = Turn(), threading.Event(), Wait()
    with turn.taken():
        thread = in_thread(turn, begun)
        threading.Thread(target=lambda: (begun.wait(5), wait.wake(7)), daemon=True).start()
        assert wait.next(turn) == 7
        assert begun.is_set()
        thread.join(5)
        late = threading.Event()
        thread = in_thread(turn, late)
        assert not late.wait(0.1)  # the turn was taken again
    thread.join(5)


def test_a_thread_works_without_a_turn_after_the_longest_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LONGEST_S", 0.05)
    turn, begun = Turn(), threading.Event()
    with turn.taken():
        in_thread(turn, begun).join(5)
        assert begun.is_set()
        late = threading.Event()
        monkeypatch.setattr(module, "LONGEST_S", 5.0)
        thread = in_thread(turn, late)
        assert not late.wait(0.1)  # the other thread did not give this one's turn away
    thread.join(5)
    assert late.is_set()
