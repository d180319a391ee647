"""What a stage prints while its run works."""

from __future__ import annotations

import pytest

from proofloop.curriculum import compose, work
from proofloop.curriculum.compose import everywhere
from proofloop.curriculum.work import SamplingReport
from proofloop.runs.progress import RunProgress
from proofloop.schema.records import ALL_ROLES
from tests.unit.curriculum.works import work_on


@pytest.fixture(autouse=True)
def every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports speak each time that they are called."""
    monkeypatch.setattr(work, "EVERY_S", -1.0)


def test_supervised_steps_are_counted_against_all_of_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    here = work_on(cold_start={"steps": 40})
    report = SamplingReport(here, compose.cold_start(here.spec, "0-cold_start"))
    for steps in (0, 1, 1, 40):
        report(RunProgress(planned=0, steps={ALL_ROLES: steps}))
    assert capsys.readouterr().out.splitlines() == [
        "0-cold_start: supervised step 0/40",
        "0-cold_start: supervised step 1/40",
        "0-cold_start: supervised step 40/40",
    ]


def test_time_left_leaves_out_what_an_earlier_process_did(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.monotonic", iter(range(100)).__next__)
    here = work_on()
    report = SamplingReport(here, compose.reviewing(here.spec, "D_v", everywhere("v"), 1))
    report(RunProgress(planned=200, labeled=100))
    report(RunProgress(planned=200, labeled=150))
    [first, second] = capsys.readouterr().out.splitlines()
    assert first == "D_v: proofs done: 100/200"
    assert "150/200, about" in second
    assert 1 < int(second.split()[-3]) < 10  # 50 in a few ticks of the clock, not 150
