"""What a person sees of long work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from proofloop.cli.progress import ProgressLine
from proofloop.runs.progress import RunProgress


def test_where_there_is_no_terminal_progress_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    clock = [100.0]
    monkeypatch.setattr("proofloop.cli.progress.time.monotonic", lambda: clock[0])
    line = ProgressLine()
    for labeled in range(41):
        line.show("run", RunProgress(planned=40, labeled=labeled))
        clock[0] += 1.0
    line.show("run", RunProgress(planned=40, labeled=40))
    line.show("run", RunProgress(planned=50, labeled=40))  # a search that goes on
    said = [text.partition(" proofs")[0] for text in capsys.readouterr().err.splitlines()]
    assert said == ["run: 0/40", "run: 15/40", "run: 30/40", "run: 40/40", "run: 40/50"]


def test_the_last_line_of_a_search_tells_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    line = ProgressLine()
    for ended in (0, 0, 2):
        line.show("run", RunProgress(planned=8, labeled=8, searches=2, searches_ended=ended))
    first, last = capsys.readouterr().err.splitlines()
    assert "0/2 searches ended" in first and last.endswith("2/2 searches ended; took 0 s")


def test_the_last_line_has_the_cost_of_the_last_calls(capsys: pytest.CaptureFixture[str]) -> None:
    line = ProgressLine()
    for money in (0.0, 0.0, 0.66):
        line.show("run", RunProgress(planned=8, labeled=8, money=money))
    first, last = capsys.readouterr().err.splitlines()
    assert "cost so far 0.00" in first and "cost so far 0.66" in last


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """`said(after_s, progress, ...)`: the last line when each progress is shown so long after the
    one before.
    """
    clock = [100.0]
    monkeypatch.setattr("proofloop.cli.progress.time.monotonic", lambda: clock[0])

    def show(after_s: float, *all_progress: RunProgress) -> str:
        line = ProgressLine()
        for progress in all_progress:
            line.show("run", progress)
            clock[0] += after_s
        return capsys.readouterr().err.splitlines()[-1].removeprefix("run: ")

    return show


def test_the_line_tells_calls_tokens_and_money(said: Callable[..., str]) -> None:
    begin = RunProgress(planned=40, labeled=12, stored=10, money=1.5)
    now = replace(begin, labeled=32, calls={"verifier": 3, "generator": 1}, tokens=6000, money=2.5)
    assert said(20, begin, now) == (
        "32/40 proofs done (none yet); calls in flight: generator 1, verifier 3; 300 tokens/s; cost"
        " so far 2.50;"
        " about 7 s left"  # the ten that lay in the store took no time
    )


def test_before_proofs_are_done_the_calls_that_there_can_be_limit_the_time(
    said: Callable[..., str],
) -> None:
    begin = RunProgress(planned=10, most_calls=20)
    assert said(20, begin, replace(begin, answered=50)).endswith("at most 60 s left")
    assert said(20, begin, replace(begin, answered=4)).endswith("time left: not known yet")


@pytest.mark.parametrize(
    ("in_flight", "answered", "is_known"),
    [(1, 5, True), (4, 7, False), (4, 8, True), (64, 19, False), (64, 20, True)],
)
def test_two_rounds_of_calls_are_enough_to_limit_the_time(
    said: Callable[..., str], in_flight: int, answered: int, is_known: bool
) -> None:
    begin = RunProgress(planned=10, most_calls=20)
    now = replace(begin, answered=answered, calls={"generator": in_flight})
    assert ("at most" in said(20, begin, now)) == is_known


def test_the_time_left_counts_what_searches_may_still_ask_for(said: Callable[..., str]) -> None:
    begin = RunProgress(planned=24, searches=6, most=140, expected=140)
    assert said(20, begin, replace(begin, labeled=20)).endswith(
        "0/6 searches ended; about 2 min left"
    )
    some = replace(begin, labeled=20, searches_ended=2, expected=60, most=100)
    assert said(20, begin, some).endswith("2/6 searches ended; about 40 s left, at most 80 s")
