"""What a run's answers can be read by: `proofloop proof`, and the reasons why some could not be
read.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from proofloop.cli.run import print_unread
from proofloop.cli.runs.proof import proof as print_proof
from proofloop.cli.runs.show import show
from proofloop.errors import ConfigError
from proofloop.runs.answers import Unread, readability
from proofloop.runs.create import create_run
from proofloop.schema import keys
from proofloop.schema.records import Critique, MetaCritique, RawAnswer, Verdict
from proofloop.store import LocalStore, put_record
from tests.builders import (
    PROOF,
    PROVENANCE,
    RUN,
    critique,
    judgement,
    proof,
    runspec,
    undecided_label,
    valid,
)

NO_SCORE = Verdict(
    outcome="malformed", reason="the score '0.7' is not 0, 0.5 or 1", cause="the score is none"
)
OTHER_SCORE = NO_SCORE.model_copy(update={"reason": "the score '7' is not 0, 0.5 or 1"})
CUT = Verdict(
    outcome="engine_failed",
    reason="the stream was cut after 7 characters",
    cause="the stream was cut",
)
WROTE = RawAnswer(text="I rate it 0.7.", reasoning="Hm\x1b[2J.")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A proof with four critiques, of which one can be read, and one whose generator wrote nothing
    to be read.
    """
    store = LocalStore(tmp_path)
    create_run(store, runspec(), resume=False)
    put_record(store, keys.proof(RUN, PROOF), proof(valid(0.5)))
    raw_key = keys.raw_answer(RUN, "p1-001", "proof", "ab")
    put_record(store, raw_key, RawAnswer(text="No idea.", reasoning="Let me think."))
    unreadable = proof(CUT, id="p1-001", solution="", self_analysis="", raw_key=raw_key)
    put_record(store, keys.proof(RUN, "p1-001"), unreadable)
    put_record(store, keys.critique(RUN, PROOF, 0), critique(0, valid(0.0), "Step 2 is wrong."))
    for index, verdict in enumerate((NO_SCORE, OTHER_SCORE, CUT), 1):
        unread = Critique(
            proof_id=PROOF,
            index=index,
            analysis="",
            verdict=verdict,
            provenance=PROVENANCE,
            raw=WROTE,
        )
        put_record(store, keys.critique(RUN, PROOF, index), unread)
    meta = MetaCritique(
        analysis="It is real.", verdict=valid(1.0), provenance=PROVENANCE, raw=RawAnswer(text=None)
    )
    put_record(store, keys.meta_critique(RUN, PROOF, 0, 1), meta)
    put_record(store, keys.judgement(RUN, PROOF, 0), judgement(0, 0.0, True))
    put_record(store, keys.label(RUN, PROOF), undecided_label())
    return tmp_path


def test_answers_that_were_not_read_are_counted_by_what_they_share(folder: Path) -> None:
    found = readability(LocalStore(folder), RUN)
    assert dict(found.seen) == {"generator": 2, "verifier": 4, "meta_verifier": 1}
    assert dict(found.read) == {"generator": 1, "verifier": 1, "meta_verifier": 1}
    assert found.unread == (
        Unread(
            "verifier", "malformed", "the score is none", 2, f"{PROOF}/critique-1", NO_SCORE.reason
        ),
        Unread("generator", "engine_failed", "the stream was cut", 1, "p1-001", CUT.reason),
        Unread(
            "verifier", "engine_failed", "the stream was cut", 1, f"{PROOF}/critique-3", CUT.reason
        ),
    )
    assert found.is_whole and found.roles_without_any == ()


def test_a_long_run_is_looked_through_in_part_and_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = readability(LocalStore(folder), RUN, limit=4)
    assert not found.is_whole and sum(found.seen.values()) == 4
    print_unread(RUN, found)
    assert "of the first 4 answers" in capsys.readouterr().err
    monkeypatch.setattr("proofloop.cli.runs.show.readability", lambda *_: found)
    show(RUN, folder)
    shown = capsys.readouterr().out
    assert "verifier answers │ 4, 1 readable of the first 4 answers" in shown


def test_show_and_the_end_of_a_run_name_the_commonest_reasons(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show(RUN, folder, as_json=True)
    shown = json.loads(capsys.readouterr().out)["unread"]
    assert [(each["count"], each["cause"]) for each in shown] == [
        (2, "the score is none"),
        (1, "the stream was cut"),
        (1, "the stream was cut"),
    ]
    show(RUN, folder)
    assert f"{PROOF}/critique-1" in capsys.readouterr().out
    print_unread(RUN, readability(LocalStore(folder), RUN))
    said = capsys.readouterr().err
    assert f"unreadable: 2 of the verifier: the score is none (as {PROOF}/critique-1)" in said
    assert f"`proofloop proof {RUN} {PROOF}/critique-1`" in said


@pytest.mark.parametrize(
    ("name", "raw", "wanted"),
    [
        (
            PROOF,
            False,
            [
                "self-score: 0.5",
                "undecided",
                "quality 1",
                f"{PROOF}/critique-0: score 0, confirmed",
            ],
        ),
        (
            PROOF,
            False,
            [f"{PROOF}/critique-1: malformed: {NO_SCORE.reason}", "model: m-1", "20 answer"],
        ),
        (
            f"{PROOF}/critique-0",
            False,
            ["confirmed", "Step 2 is wrong.", "meta-0-1: score 1", "It is real."],
        ),
        (f"{PROOF}/0", False, ["Step 2 is wrong."]),
        (f"{PROOF}/critique-1", False, [NO_SCORE.reason, "I rate it 0.7.", "Hm"]),
        (f"{PROOF}/meta-0-1", True, ["It is real.", "score: 1"]),
        ("p1-001", False, [CUT.reason, "No idea.", "Let me think."]),
    ],
)
def test_an_answer_is_printed_with_what_belongs_to_it(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, raw: bool, wanted: list[str]
) -> None:
    print_proof(RUN, name, raw, folder)
    printed = capsys.readouterr().out
    assert [text for text in wanted if text not in printed] == []
    assert "\x1b" not in printed


def test_a_proof_is_not_headed_by_its_self_score(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_proof(RUN, PROOF, False, folder)
    assert capsys.readouterr().out.splitlines()[0] == PROOF


def test_an_answer_is_printed_as_json_with_its_raw_text(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_proof(RUN, f"{PROOF}/meta-0-1", True, folder, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["raw"] == {"text": "It is real.", "reasoning": "", "left_out": 0}
    assert found["provenance"]["model_version"] == "m-1"


def test_proofs_are_listed_where_none_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_proof(RUN, None, False, folder, as_json=True)
    rows = json.loads(capsys.readouterr().out)
    assert [(row["proof"], row["outcome"], row["unreadable_because"]) for row in rows] == [
        (PROOF, "undecided", None),
        ("p1-001", None, "the stream was cut"),
    ]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("p1-002", f"did you mean p1-001 or {PROOF}? `proofloop proof {RUN}` lists its proofs"),
        ("zzz", f"`proofloop proof {RUN}` lists its proofs"),
        ("..", "letters"),
        (f"{PROOF}/critique-9", f"`proofloop proof {RUN} {PROOF}` lists the parts of the proof"),
        (f"{PROOF}/attempt-0", "lists its proofs"),
        (f"{PROOF}/nonsense", "write critique-3"),
    ],
)
def test_a_wrong_name_is_told_the_right_ones(folder: Path, name: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        print_proof(RUN, name, False, folder)
    assert said in str(caught.value)
