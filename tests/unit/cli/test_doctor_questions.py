"""What `doctor FILE` says of the answers to real questions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from proofloop.cli.doctor.findings import Finding, finding_of
from proofloop.cli.doctor.questions import ask_roles
from proofloop.config.run_file import RunSpec
from proofloop.engine.base import LARGEST_SEED
from proofloop.method.domains import load_domain, need_critique_finding, need_proof_finding
from proofloop.method.prompts import load_pack
from proofloop.store import LocalStore
from proofloop.worker.engine_pool import Engines
from tests.builders import answer, evaluation, meta_evaluation, runspec
from tests.scripted_openai import Exchange, Script, ScriptedServer, chunk, refuses, sends

QUESTION = "Prove that 2 is even."
SAMPLING = {
    "generator": {"max_tokens": 900, "temperature": 0.5},
    "verifier": {"max_tokens": 800},
    "meta_verifier": {"max_tokens": 700},
}


@pytest.fixture
def engines(tmp_path: Path) -> Iterator[Engines]:
    opened = Engines(LocalStore(tmp_path), tmp_path / "cache")
    yield opened
    opened.close()


def spec_of(server: ScriptedServer, **sections: object) -> RunSpec:
    settings = {"base_url": server.base_url, "max_attempts": 1}
    fields = {"engine": {"kind": "openai", "settings": settings}, "sampling": SAMPLING, **sections}
    return runspec(problems={"file": "problems.jsonl"}, **fields)


def by_role(generator: Script, verifier: Script, meta: Script) -> Script:
    """A script for each role, told apart by max_tokens."""

    def script(exchange: Exchange) -> None:
        {900: generator, 800: verifier, 700: meta}[exchange.body["max_tokens"]](exchange)

    return script


def says(exactly: str) -> Script:
    return sends(chunk({"content": exactly}) + chunk({}, "stop"))


PROVES, REVIEWS, JUDGES = says(answer()), says(evaluation("0")), says(meta_evaluation("1"))


def findings(engines: Engines, spec: RunSpec, wait_s: float = 30) -> list[Finding]:
    return [finding_of(each, spec, wait_s) for each in ask_roles(engines, spec, QUESTION, wait_s)]


def test_each_first_answer_is_told_at_once(engines: Engines) -> None:
    told: list[tuple[str, bool]] = []
    with ScriptedServer(by_role(PROVES, says("Hm."), JUDGES)) as server:
        spec = spec_of(server)
        ask_roles(
            engines, spec, QUESTION, 30, lambda each: told.append((each.role, each.is_readable))
        )
    assert sorted(told) == [("generator", True), ("meta_verifier", True), ("verifier", False)]


def test_each_role_is_asked_as_in_the_run_and_its_answer_read(engines: Engines) -> None:
    with ScriptedServer(by_role(PROVES, REVIEWS, JUDGES)) as server:
        found = findings(engines, spec_of(server))
        asked = sorted(
            (each.body for each in server.received), key=lambda body: -body["max_tokens"]
        )
    assert [(each.what, each.state) for each in found] == [
        ("generator", "ok"),
        ("verifier", "ok"),
        ("meta_verifier", "ok"),
    ]
    assert found[1].found.startswith("readable, score 0: ") and "m-1 at 127.0.0.1" in found[1].found
    assert [(body["temperature"], body["seed"]) for body in asked] == [
        (0.5, LARGEST_SEED),
        (1, LARGEST_SEED),
        (1, LARGEST_SEED),
    ]
    prompts = [body["messages"][0]["content"] for body in asked]
    assert prompts[0] == load_pack("math").prove(QUESTION).text
    assert all(QUESTION in prompt for prompt in prompts)
    assert "only asserts the claim" in prompts[2] and "\\boxed{0}" in prompts[2]


def test_answers_that_cannot_be_read_are_shown_with_the_reason_and_asked_for_twice(
    engines: Engines,
) -> None:
    with ScriptedServer(by_role(PROVES, says("I like this proof."), JUDGES)) as server:
        strict = spec_of(server, reading="strict")
        found = findings(engines, strict)[1]
        assert sum(each.body["max_tokens"] == 800 for each in server.received) == 2
    assert found.state == "broken" and found.found.startswith("malformed: ")
    assert "the answer begins: 'I like this proof.'" in found.found
    assert 'set reading = "lenient"' in found.hint and "prompt pack" in found.hint


def test_a_second_answer_that_can_be_read_makes_it_a_warning(engines: Engines) -> None:
    proofs = iter((says(evaluation("1")), says(answer())))
    with ScriptedServer(by_role(lambda it: next(proofs)(it), REVIEWS, JUDGES)) as server:
        found = {each.what: each for each in findings(engines, spec_of(server))}
    assert found["verifier"].state == "ok"
    assert found["generator"].state == "warning"
    assert found["generator"].found.endswith("another answer was unreadable")


def test_an_answer_that_was_cut_off_asks_for_more_tokens(engines: Engines) -> None:
    cut = sends(chunk({"content": "## Solution\n\nLet"}) + chunk({}, "length"))
    with ScriptedServer(by_role(cut, REVIEWS, JUDGES)) as server:
        found = findings(engines, spec_of(server))[0]
    assert found.state == "broken" and found.found.startswith("truncated: ")
    assert found.hint.startswith("raise [sampling.generator] max_tokens")


def test_a_server_that_refuses_one_role_is_named_with_it(engines: Engines) -> None:
    with ScriptedServer(by_role(PROVES, refuses(400, "no tokens left"), JUDGES)) as server:
        found = findings(engines, spec_of(server))
    assert [each.state for each in found] == ["ok", "broken", "ok"]
    assert "no tokens left" in found[1].found


def test_an_answer_that_takes_too_long_is_measured_and_given_up(engines: Engines) -> None:
    def slow(exchange: Exchange) -> None:
        exchange.begin()
        exchange.say("Let us see")
        exchange.stall_until_client_leaves()

    with ScriptedServer(by_role(slow, REVIEWS, JUDGES)) as server:
        found = findings(engines, spec_of(server), wait_s=1)[0]
        assert server.client_left.wait(5)
    assert found.state == "warning" and "max_tokens = 900 would take" in found.found
    assert "--wait" in found.hint


def test_a_slow_role_neither_counts_as_another_ones_time_nor_delays_its_retry(
    engines: Engines,
) -> None:
    def slow(exchange: Exchange) -> None:
        exchange.begin()
        exchange.say("Let us see")
        exchange.stall_until_client_leaves()

    critiques = iter((says("Hm."), REVIEWS))
    script = by_role(slow, lambda it: next(critiques)(it), JUDGES)
    with ScriptedServer(script) as server:
        _, verifier, meta = ask_roles(engines, spec_of(server), QUESTION, 1.5)
    assert meta.is_readable and meta.seconds < 1
    assert verifier.is_readable and verifier.unreadable == 1


def test_an_unreadable_answer_without_time_for_a_second_one_is_a_warning(engines: Engines) -> None:
    def slow(exchange: Exchange) -> None:
        exchange.begin()
        exchange.stall_until_client_leaves()

    critiques = iter((says("Hm."), slow))
    with ScriptedServer(by_role(PROVES, lambda it: next(critiques)(it), JUDGES)) as server:
        found = findings(engines, spec_of(server), wait_s=1)[1]
    assert found.state == "warning" and "no second answer within 1 s" in found.found
    assert found.hint.startswith("raise --wait")


def test_each_endpoint_of_a_role_is_asked(engines: Engines) -> None:
    with (
        ScriptedServer(by_role(PROVES, REVIEWS, JUDGES)) as good,
        ScriptedServer(says("No.")) as bad,
    ):
        both = [{"base_url": server.base_url} for server in (good, bad)]
        engine = {
            "kind": "openai",
            "settings": {"base_url": good.base_url},
            "verifier": {"settings": {"endpoints": both}},
        }
        found = findings(engines, spec_of(good, engine=engine))
    assert [(each.what, each.state) for each in found if each.what == "verifier"] == [
        ("verifier", "ok"),
        ("verifier", "broken"),
    ]


def test_a_sample_of_nano_is_what_its_checker_says() -> None:
    domain = load_domain("nano")
    question = domain.pose(0, split="test", seed=0).question
    sample = domain.sample(question)
    assert need_proof_finding(domain, question, sample.proof).score == sample.score < 1
    assert need_critique_finding(domain, question, sample.proof, sample.analysis).faithful
