"""`proofloop plan` as a user has it: the example of the documentation, a measured run, what it
refuses.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from proofloop.cli.init.command import init
from tests.e2e.test_cli import SMALL, Here, call, here

__all__ = ["here"]

ROOT = Path(__file__).parents[2]
REHEARSAL = "rehearsal/run.toml"
OURS = ("--tokens-per-second", "4000")


@pytest.fixture(autouse=True)
def rehearsal(tmp_path: Path) -> None:
    init(tmp_path / "rehearsal", engine="simulated", url=None, model=None)


def test_the_example_of_the_documentation_is_what_the_command_prints(
    here: Here, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    text = (ROOT / "docs" / "how-to" / "costs.md").read_text()
    found = re.search(r"```\n(proofloop plan [^`]*)\n```\n\n```\n([^`]*)```", text)
    assert found
    words = shlex.split(found[1].replace("\\\n", ""))[1:]
    said = here(tmp_path)(*words)
    assert said.code == 0, said.err
    assert "\n".join(line.rstrip() for line in said.out.splitlines()) + "\n" == found[2]


def test_a_measured_run_takes_the_place_of_the_limits(here: Here, tmp_path: Path) -> None:
    command = here(tmp_path)
    settings = "latency_s = 0.01, tokens = 300, malformed_share = 0.1"
    (tmp_path / "small.toml").write_text(SMALL.format(count=6, settings=settings))
    assert command("run", "small.toml").code == 0
    cost = {row["of"]: row for row in command("runs", "cost", "small", "--json").data()}
    shown = command("plan", "--from", "small", "--problems-per-hour", "6", *OURS, "--json").data()
    rows = {row["role"]: row for row in shown["roles"]}
    # Six problems again: the same calls again.
    for role in (
        "generator",
        "verifier",
        "meta_verifier",
    ):
        assert rows[role]["calls_per_hour"] == pytest.approx(cost[role]["calls"])
        assert rows[role]["answer_tokens"] == pytest.approx(
            cost[role]["completion_tokens"] / cost[role]["calls"]
        )
    assert rows["verifier"]["calls_per_hour"] < 6 * 2 * 4
    assert [one["assumed"] for one in shown["assumed"] if one["by"] == "a guess"] == [
        "labeler: seconds of a message"
    ]
    assert {one["by"] for one in shown["assumed"]} == {
        "run small",
        "64 streams at 4000 tokens/s",
        "a guess",
    }
    timed = command("plan", "--from", "small", "small.toml", "--json").data()
    seconds = timed["roles"][1]["call_seconds"]
    assert seconds == pytest.approx(cost["verifier"]["engine_seconds"] / cost["verifier"]["calls"])


def test_a_role_that_the_measured_run_never_called_has_no_calls(here: Here, tmp_path: Path) -> None:
    command = here(tmp_path)
    settings = "latency_s = 0.01, tokens = 300, good_share = 1.0, verifier_noise = 0.0"
    perfect = SMALL.format(count=2, settings=settings).replace("n = 4", "n = 1")
    (tmp_path / "small.toml").write_text(perfect.replace("k = 2", "k = 1"))
    assert command("run", "small.toml").code == 0
    cost = {row["of"]: row for row in command("runs", "cost", "small", "--json").data()}
    assert (cost["verifier"]["calls"], cost["meta_verifier"]["calls"]) == (4, 0)
    shown = command("plan", "--from", "small", "--problems-per-hour", "2", "--json").data()
    calls = {row["role"]: row["calls_per_hour"] for row in shown["roles"]}
    assert calls == {"generator": 4, "verifier": 4, "meta_verifier": 0, "labeler": 0}
    assert {row["role"]: row["calls"]["high"] for row in shown["run"]["roles"]}[
        "meta_verifier"
    ] == 0
    asked = command(
        "plan",
        "--from",
        "small",
        "--issue-share",
        "0.5",
        *OURS,
        "--problems-per-hour",
        "2",
        "--json",
    ).data()
    assert asked["roles"][2]["calls_per_hour"] == pytest.approx(4 * 2 * 0.5 * 3)


def test_a_measured_run_whose_calls_took_no_time_says_so(here: Here, tmp_path: Path) -> None:
    command = here(tmp_path)
    (tmp_path / "small.toml").write_text(SMALL.format(count=2, settings="tokens = 300"))
    assert command("run", "small.toml").code == 0
    shown = command("plan", "--from", "small")
    assert (
        shown.code,
        shown.err.count(
            "no plan for pods and GPUs: run small has no time for calls of the generator"
        ),
    ) == (
        0,
        1,
    )
    assert "no time for calls of the generator, verifier, meta_verifier" in " ".join(
        shown.out.split()
    )
    timed = ("--call-seconds", "generator=2", "--call-seconds", "verifier=1")
    run = command("plan", "--from", "small", *timed, "--json").data()["run"]
    assert run["hours"]["low"] > 0
    assert (
        run["rests_on"][1]
        == "the measured run has no time for calls of the meta_verifier: they count as 0 s"
    )


def test_a_number_for_all_roles_and_one_for_a_role(here: Here, tmp_path: Path) -> None:
    said = here(tmp_path)(
        *(
            "plan",
            REHEARSAL,
            *OURS,
            "--json",
            "--gpus",
            "verifier=16",
            "--gpus",
            "8",
            "--call-seconds",
            "generator=7",
        ),
        *("--concurrency", "labeler=9", "--issue-share", "0.25"),
    )
    rows = {row["role"]: row for row in said.data()["roles"]}
    assert rows["generator"]["call_seconds"] == 7
    assert rows["labeler"]["concurrency"] == 9
    assert [rows[role]["gpus"] / rows[role]["replicas"] for role in ("generator", "verifier")] == [
        8,
        16,
    ]
    assert rows["meta_verifier"]["calls_per_hour"] == pytest.approx(400 * 9 * 0.25 * 3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((REHEARSAL, "--gpu-hour", "2.5"), "a problem, by --gpu-hour"),
        ((REHEARSAL,), "a problem, by [prices]"),
        (("unpriced.toml",), "GPUs; cost not known: give --gpu-hour or [prices]"),
    ],
)
def test_a_plan_says_by_whose_prices_it_counts(
    words: tuple[str, ...], said: str, here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "unpriced.toml").write_text(SMALL.format(count=2, settings=""))
    shown = here(tmp_path)("plan", *words, *OURS).out
    assert [line for line in shown.splitlines() if line.rstrip().endswith(said)]
    assert " 0.00 " not in shown


def test_the_run_itself_comes_first_and_needs_no_option(here: Here, tmp_path: Path) -> None:
    command = here(tmp_path)
    settings = "latency_s = 0.01, tokens = 300"
    (tmp_path / "small.toml").write_text(
        SMALL.format(count=6, settings=settings) + "[budget]\ntokens = 100\n"
    )
    said = command("plan", "small.toml")
    assert (said.code, said.err.count("no plan for pods and GPUs: the time of a call")) == (
        0,
        1,
    )
    assert (
        "the whole run" in said.out
        and "[budget] tokens = 100 is too small for the whole run" in said.out
    )
    guessed = command("plan", "small.toml", "--json").data()["run"]
    (tmp_path / "small.toml").write_text(SMALL.format(count=6, settings=settings))
    assert command("run", "small.toml").code == 0
    cost = {row["of"]: row for row in command("runs", "cost", "small", "--json").data()}
    measured = command("plan", "--from", "small", "--json").data()["run"]
    for run in (guessed, measured):
        assert (run["problems"], run["proofs"], run["money"]) == (6, {"low": 12, "high": 12}, None)
        for of, ends in [(role["role"], role["calls"]) for role in run["roles"]]:
            assert ends["low"] <= cost[of]["calls"] <= ends["high"]
        assert (
            run["tokens"]["high"]
            > cost["total"]["prompt_tokens"] + cost["total"]["completion_tokens"]
        )
    assert (
        measured["tokens"]["low"]
        < cost["total"]["prompt_tokens"] + cost["total"]["completion_tokens"]
    )
    assert measured["tokens"]["high"] < guessed["tokens"]["high"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (
            (),
            "error: no run to plan: FILE and --from are missing (hint: name a run.toml, or a run",
        ),
        (
            (REHEARSAL, "--values"),
            "the time of a call of the generator is not known (hint: give --tokens-per-second",
        ),
        (
            (REHEARSAL, "--gpus", "verifyer=8"),
            "--gpus verifyer=8: unknown role 'verifyer' (hint: use one of: generator, ",
        ),
        (
            (REHEARSAL, "--streams", "many"),
            "--streams many: 'many' is not a number (hint: write --streams 5, or --streams",
        ),
        ((REHEARSAL, "--streams", "0"), "--streams 0: must be a number from 1 to 1e+09"),
        ((REHEARSAL, "--gpus", "1.5"), "--gpus 1.5: must be a whole number"),
        (
            (REHEARSAL, "--gpus", "12"),
            "--gpus 12: a replica with more than 8 GPUs takes whole nodes (hint: give a",
        ),
        (
            (REHEARSAL, "--answer-tokens", "nan"),
            "--answer-tokens nan: must be a number from 1 to 1e+09",
        ),
        (
            (REHEARSAL, "--call-seconds", "1e308"),
            "--call-seconds 1e308: must be a number from 0.001 to 1e+09",
        ),
        (("--from", "none"), "no store at"),
    ],
)
def test_what_cannot_be_planned_is_refused_in_one_line(
    words: tuple[str, ...], complaint: str, here: Here, tmp_path: Path
) -> None:
    said = here(tmp_path)("plan", *words)
    assert (said.code, said.out) == (2, "")
    assert complaint in said.err and said.err.count("\n") == 1


def test_a_supervised_run_has_no_calls_to_plan(here: Here, tmp_path: Path) -> None:
    command = here(tmp_path)
    text = 'name = "taught"\nprompts = "nano"\n[fine_tuning]\ndomain = "nano"\nsteps = 3\n'
    (tmp_path / "taught.toml").write_text(text)
    said = command("plan", "taught.toml")
    assert (said.code, said.out) == (2, "")
    assert "run 'taught' has [fine_tuning]: it calls no model" in said.err


def test_values_can_go_to_a_file_and_help_teaches(tmp_path: Path) -> None:
    said = call(tmp_path, "plan", REHEARSAL, *OURS, "--values")
    assert said.code == 0 and said.out.startswith(
        "# helm/proofloop, for 100 problems an hour\nroles:\n"
    )
    shown = call(tmp_path, "plan", "--help").out
    assert "--answer-tokens verifier=12000" in shown and "costs.md" in shown
