"""Who is warned, when, and of what, where most of a role's first answers cannot be read."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import structlog

from proofloop.schema.records import Verdict
from proofloop.store import LocalStore
from proofloop.worker.calls.early_warning import EarlyWarnings, NewWarnings
from tests.builders import RUN, runspec, valid

CUT = Verdict(outcome="truncated", reason="cut off at max_tokens")
NO_SCORE = Verdict(outcome="malformed", reason="the score '0.7' is none", cause="the score is none")
EMPTY = Verdict(outcome="malformed", reason="the answer is empty")
FAILED = Verdict(
    outcome="engine_failed",
    reason="status 500: boom 17",
    cause="the server answered with status 500",
)


def warned(folder: Path, *verdicts: Verdict, **sections: Any) -> list[str]:
    """The lines that a run's process shows after these answers of the verifier."""
    store, spec = LocalStore(folder), runspec(**sections)
    new = NewWarnings(store, RUN)
    counted = EarlyWarnings(store)
    for number, verdict in enumerate(verdicts):
        counted.add(spec, "verifier", f"p1-000/critique-{number}", verdict)
    return [warning.line(RUN) for warning in new.look(every_s=0.0)]


def test_ten_answers_of_which_most_are_unreadable_are_warned_of_once(tmp_path: Path) -> None:
    [line] = warned(
        tmp_path, valid(1.0), *[NO_SCORE] * 4, *[CUT] * 2, *[valid(0.0)] * 3, *[NO_SCORE] * 50
    )
    assert line.startswith(
        "warning: 6 of the first 10 answers of the verifier were not read, most often because: the"
        " score is none. "
        f"See one: `proofloop proof {RUN} p1-000/critique-1`. Ways out: "
    )


@pytest.mark.parametrize(
    "verdicts", [[NO_SCORE] * 9, [*[NO_SCORE] * 5, *[valid(1.0)] * 5, *[NO_SCORE] * 50]]
)
def test_fewer_than_ten_or_half_of_them_are_no_reason_to_warn(
    tmp_path: Path, verdicts: list[Verdict]
) -> None:
    assert warned(tmp_path, *verdicts) == []


@pytest.mark.parametrize(
    ("verdict", "sections", "ways"),
    [
        (CUT, {}, "raise [sampling.verifier] max_tokens = 4096"),
        (NO_SCORE, {"reading": "strict"}, 'reading = "lenient"; another prompt pack'),
        (NO_SCORE, {}, "Ways out: another prompt pack than 'math'"),
        (EMPTY, {}, "turn off the server's reasoning parser"),
        (FAILED, {}, "see to the server"),
    ],
)
def test_the_ways_out_fit_the_reason(
    tmp_path: Path, verdict: Verdict, sections: dict[str, Any], ways: str
) -> None:
    [line] = warned(tmp_path, *[verdict] * 10, **sections)
    assert ways in line and "`proofloop doctor FILE`" in line


def test_a_role_is_warned_of_once_by_all_processes_and_in_their_log(tmp_path: Path) -> None:
    store, spec = LocalStore(tmp_path), runspec()
    processes = [EarlyWarnings(store) for _ in range(4)]

    def answer(process: EarlyWarnings) -> None:
        for number in range(10):
            process.add(spec, "generator", f"p1-{number:03d}", FAILED)

    with structlog.testing.capture_logs() as lines:
        threads = [threading.Thread(target=answer, args=(process,)) for process in processes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    [line] = [line for line in lines if line["event"] == "answers_not_read"]
    assert (line["log_level"], line["role"], line["example"]) == ("warning", "generator", "p1-000")
    assert NewWarnings(store, RUN).look(every_s=0.0) == []  # the resumed run does not say it again
