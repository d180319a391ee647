"""Opening the engine that a run names, and what is said when that cannot be done."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

import proofloop.engine.info
from proofloop.api.drive import check_from_here
from proofloop.config.run_file import RunSpec, parse_runspec
from proofloop.engine import BUILT_IN, find_engine, get_engine, installed_engines, open_engine
from proofloop.engine.base import ChatMessage, GenerationRequest
from proofloop.engine.info import EngineInfo
from proofloop.engine.openai.engine import OpenAIEngine
from proofloop.engine.openai.settings import OpenAISettings
from proofloop.engine.settings import EngineSettings, MayChange, read_settings
from proofloop.engine.simulated.engine import SimulatedEngine
from proofloop.engine.triton.settings import TritonSettings
from proofloop.errors import ConfigError, EngineError
from proofloop.schema.records import MODEL_ROLES, Sampling
from proofloop.store import LocalStore
from proofloop.worker.engine_pool import IDLE_S, Engines
from tests.builders import runspec
from tests.scripted_openai import Exchange, Script, ScriptedServer, answers, chunk, refuses, sends


def resolve_model(version: str) -> Path:
    raise AssertionError("no engine of this package needs a model's folder")


def refusal(kind: str, **settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        open_engine(kind, settings, resolve_model)
    return str(caught.value)


def test_the_engines_of_this_package_are_opened_by_name() -> None:
    assert isinstance(open_engine("simulated", {"seed": 3}, resolve_model), SimulatedEngine)
    engine = open_engine("openai", {"base_url": "http://localhost:1/v1"}, resolve_model)
    assert isinstance(engine, OpenAIEngine)
    engine.close()


def test_an_unknown_engine_is_named_with_those_there_are() -> None:
    said = refusal("tritn")
    assert said.startswith('unknown engine "tritn" in [engine] kind\nhint: use one of ')
    assert "openai" in said and "simulated" in said


def test_the_local_engine_is_in_another_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proofloop.engine.info, "find_spec", lambda _: None)
    assert refusal("local") == (
        'engine "local" is not installed\n'
        "hint: in a clone of proofloop: pip install ./serving; or use one of openai, simulated"
    )


class MySettings(EngineSettings):
    base_url: MayChange[str] = "http://here"
    max_concurrency: MayChange[int] = 7
    style: str = "short"


def open_mine(settings: Any, resolve: Any) -> Any:
    assert resolve is resolve_model
    return open_engine("simulated", settings, resolve)


MINE = EngineInfo(open=open_mine, settings=MySettings, on_server=True, serves_new_versions=False)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Registers the engine `mine` with a value of its entry point."""

    def register(value: str) -> None:
        point = metadata.EntryPoint("mine", value, proofloop.engine.ENTRY_POINT_GROUP)
        monkeypatch.setattr(proofloop.engine, "entry_points", lambda **_: (point,))

    return register


def test_another_package_can_bring_an_engine(registered: Callable[[str], None]) -> None:
    registered(f"{__name__}:MINE")
    assert isinstance(open_engine("mine", {"seed": 3}, resolve_model), SimulatedEngine)
    assert find_engine("mine") is MINE and "mine" in installed_engines()
    assert "mine" not in installed_engines(trainable=True)
    assert (MINE.max_concurrency, MINE.changeable) == (7, {"base_url", "max_concurrency"})


def test_a_run_with_an_engine_of_another_package_must_name_its_models(
    registered: Callable[[str], None],
) -> None:
    fields = {"name": "r", "problems": {"domain": "nano"}, "engine": {"kind": "mine"}}
    registered(f"{__name__}:MINE")
    with pytest.raises(ConfigError, match="engine 'mine' has no default model"):
        parse_runspec(fields, "run.toml")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (
            "no_such_package:ENGINE",
            "ModuleNotFoundError: No module named 'no_such_package'\nhint: correct or reinstall",
        ),
        (
            f"{__name__}:open_mine",
            f"{__name__}:open_mine is not an EngineInfo\nhint: let the entry",
        ),
    ],
)
def test_an_engine_that_cannot_be_loaded_is_refused_and_not_proposed(
    registered: Callable[[str], None], value: str, problem: str
) -> None:
    registered(value)
    assert refusal("mine").startswith(f"engine 'mine' cannot be loaded: {problem}")
    assert "mine" not in installed_engines()


def test_an_error_in_the_settings_of_another_package_sends_its_user_to_that_package(
    registered: Callable[[str], None],
) -> None:
    class MySettings(EngineSettings):
        rate: int = 1

    with pytest.raises(ConfigError, match=f"see the package {__name__.partition('.')[0]} for its"):
        read_settings(MySettings, {"rate": "fast"}, "mine")


def test_an_engine_of_this_package_is_found_without_a_search_of_all_packages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(**_: str) -> None:
        raise AssertionError("a search takes 7 ms, and every model call looks its engine up")

    monkeypatch.setattr(proofloop.engine, "entry_points", refuse)
    assert all(find_engine(name) for name in BUILT_IN)


def test_every_engine_of_this_package_is_described() -> None:
    found = {name: get_engine(name) for name in BUILT_IN}
    assert [name for name, info in found.items() if info.on_server] == ["openai", "triton"]
    limits = {name: info.max_concurrency for name, info in found.items()}
    assert limits == {"local": math.inf, "openai": 64, "simulated": 256, "triton": 512}
    assert "temperature" not in found["openai"].changeable
    assert {"base_url", "api_key_env", "max_tokens_field"} <= found["openai"].changeable
    assert found["openai"].changeable.isdisjoint({"model", "models", "seed_bits", "extra_body"})
    assert found["triton"].changeable.isdisjoint({"model", "models", "chat_template"})
    assert found["simulated"].changeable == {
        "latency_s",
        "latency_sigma",
        "call_log",
        "max_concurrency",
    }


def test_an_unknown_key_is_named_with_the_closest() -> None:
    assert 'unknown key "good_shar" (did you mean "good_share"?)' in refusal(
        "simulated", good_shar=1
    )


def test_a_missing_key_is_named() -> None:
    assert '[engine] openai: missing key "base_url"' in refusal("openai")


def test_a_bad_value_is_named_with_its_limit() -> None:
    assert "good_share = 1.5: Input should be less than or equal to 1" in refusal(
        "simulated", good_share=1.5
    )


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "http://host:99999/v1",
        "http://host:0/v1",
        "ftp://host/v1",
        "http://host/v1/chat/completions",
        "http://h:x/",
    ],
)
def test_an_address_that_cannot_work_is_refused(url: str) -> None:
    assert f"base_url = {url!r}" in refusal("openai", base_url=url)


def test_a_field_of_our_own_cannot_be_overridden() -> None:
    assert "must not set seed" in refusal("openai", base_url="http://h/v1", extra_body={"seed": 1})


@pytest.mark.parametrize(
    "settings", [{"api_key": "sk-secret\nsk-secret"}, {"base_url": "http://me:sk-secret@host/v1"}]
)
def test_secrets_are_not_repeated(settings: dict[str, Any]) -> None:
    said = refusal("openai", **({"base_url": "http://host/v1"} | settings))
    assert "sk-secret" not in said and ("api_key" in said or "base_url" in said)


# -- the engines of a process
# ------------------------------------------------------------------------------------------


def served_by(server: ScriptedServer, *, seed_bits: int = 63, **sections: Any) -> RunSpec:
    settings = {"base_url": server.base_url, "max_attempts": 1, "seed_bits": seed_bits}
    return runspec(engine={"kind": "openai", "settings": settings}, **sections)


def takes_at_most(max_tokens: int) -> Script:
    """Refuses a call that asks for more."""

    def script(exchange: Exchange) -> None:
        if exchange.body["max_tokens"] > max_tokens:
            exchange.refuse(400, {"error": {"message": f"max_tokens must be at most {max_tokens}"}})
        else:
            answers()(exchange)

    return script


def test_a_check_asks_with_the_sampling_and_the_prompt_of_each_role(engines: Engines) -> None:
    sampling = {"verifier": {"max_tokens": 9000, "temperature": 0.5}}
    with ScriptedServer(answers()) as server:
        engines.check(served_by(server, sampling=sampling))
    asked = [(each.body["max_tokens"], each.body["temperature"]) for each in server.received]
    assert asked == [(1, 1.0), (4096, 1.0), (9000, 0.5), (4096, 1.0)]
    assert len({each.body["messages"][0]["content"] for each in server.received}) == 4


def test_a_check_finds_sampling_that_the_server_refuses(engines: Engines) -> None:
    sampling = {"meta_verifier": {"max_tokens": 9000}}
    problem = "refuses the calls of the meta_verifier: .*must be at most 8192.*max_tokens = 9000"
    with ScriptedServer(takes_at_most(8192)) as server, pytest.raises(ConfigError, match=problem):
        engines.check(served_by(server, sampling=sampling))


def test_a_check_does_not_wait_until_a_model_has_thought(engines: Engines) -> None:
    def think(exchange: Exchange) -> None:
        if exchange.body["max_tokens"] == 1:
            answers()(exchange)
        else:
            exchange.begin()
            exchange.stall_until_client_leaves()

    with ScriptedServer(think) as server:
        engines.check(served_by(server), roles=["generator"])
        assert server.client_left.wait(5)


def takes_small_seeds(exchange: Exchange) -> None:
    if exchange.body["seed"] >= 2**31:
        exchange.refuse(
            400, {"error": {"message": "seed: should be less than or equal to 2147483647"}}
        )
    else:
        answers()(exchange)


def test_a_check_finds_a_server_that_refuses_large_seeds(engines: Engines) -> None:
    with ScriptedServer(takes_small_seeds) as server:
        with pytest.raises(ConfigError, match=r"2147483647") as caught:
            engines.check(served_by(server))
        assert "set seed_bits = 31" in caught.value.hint
        engines.check(served_by(server, seed_bits=31))


def test_a_check_finds_a_server_whose_answers_are_reasoning_alone(engines: Engines) -> None:
    script = sends(chunk({"content": None, "reasoning_content": "All of it."}, "stop"))
    with ScriptedServer(script) as server, pytest.raises(ConfigError) as caught:
        engines.check(served_by(server))
    assert (
        caught.value.problem
        == "the generator's answer has 10 characters of reasoning and no content"
    )
    assert (
        "turn off its reasoning parser" in caught.value.hint and "max_tokens" in caught.value.hint
    )


def test_a_check_lets_a_model_think_until_it_is_cut_off(engines: Engines) -> None:
    with ScriptedServer(sends(chunk({"reasoning_content": "Hm"}, "length"))) as server:
        engines.check(served_by(server))


def test_a_check_passes_on_the_way_out(engines: Engines) -> None:
    with ScriptedServer(refuses(401, "no key")) as server, pytest.raises(ConfigError) as caught:
        engines.check(served_by(server))
    assert caught.value.hint == "set PROOFLOOP_OPENAI_API_KEY to a key of this server"


@pytest.mark.parametrize("status", [400, 404])
def test_a_run_for_services_that_its_server_refuses_is_not_posed(
    engines: Engines, status: int
) -> None:
    with (
        ScriptedServer(refuses(status, "no such model")) as server,
        pytest.raises(ConfigError, match="no such model"),
    ):
        check_from_here(engines, served_by(server), threading.Event())


@pytest.mark.parametrize(
    "script", [refuses(401, "no key"), refuses(503, "loading"), lambda exchange: exchange.hang_up()]
)
def test_a_run_for_services_whose_engine_only_they_can_ask_is_posed(
    engines: Engines, script: Script
) -> None:
    with ScriptedServer(script) as server:
        check_from_here(engines, served_by(server), threading.Event())


def says_a_token(exchange: Exchange) -> None:
    exchange.begin()
    if exchange.body.get("logprobs"):
        exchange.event(choices=[], prompt_token_ids=[1])
        exchange.say("x", token_ids=[2], logprobs={"content": [{"token": "x", "logprob": -0.5}]})
    else:
        exchange.say("x")
    exchange.finish(completion_tokens=1)


TRAINS_ADAPTERS = {
    "lora": {},
    "training": {"verifier": {"steps": 1}},
    "labeling": {"stop_early": False},
}


@pytest.mark.parametrize(
    ("settings", "sections", "is_refused"),
    [
        ({"want_logprobs": True}, {}, False),
        ({}, {}, True),
        ({"want_logprobs": True}, {"sampling": {"verifier": {"temperature": 0.7}}}, True),
        ({"want_logprobs": True}, {"prompts": "math-json"}, True),
        ({"want_logprobs": True, "send_schema": False}, {"prompts": "math-json"}, False),
    ],
)
def test_a_server_trains_only_with_log_probabilities_of_the_roles_own_calls(
    engines: Engines, settings: dict[str, Any], sections: dict[str, Any], is_refused: bool
) -> None:
    with ScriptedServer(says_a_token) as server:
        given = {"base_url": server.base_url, "load_adapters": True, "max_attempts": 1, **settings}
        spec = runspec(engine={"kind": "openai", "settings": given}, **TRAINS_ADAPTERS, **sections)
        if not is_refused:
            engines.check(spec)
            return
        with pytest.raises(ConfigError, match="no token ids with log-probabilities") as caught:
            engines.check(spec)
    assert "want_logprobs = true, send_schema = false" in caught.value.hint


@pytest.mark.parametrize("settings", [OpenAISettings, TritonSettings])
def test_no_secret_of_an_engine_is_taken_from_a_run_file(settings: type[BaseModel]) -> None:
    secrets = [
        name
        for name, field in settings.model_fields.items()
        if "SecretStr" in str(field.annotation)
    ]
    assert secrets
    for name in secrets:
        fields = {
            "name": "r",
            "problems": {"domain": "nano"},
            "engine": {"settings": {name: "s3cret"}},
        }
        with pytest.raises(
            ConfigError,
            match=rf"settings has the secret {name}, .*\nhint: remove it, and set PROOFLOOP_OPENAI",
        ) as caught:
            parse_runspec(fields, "run.toml")
        assert "s3cret" not in str(caught.value)


def test_a_server_that_was_away_for_days_is_waited_for_as_long_as_any() -> None:
    settings = TritonSettings(endpoints=["host:8001"])
    assert settings.backoff_s(5000, chance=0.0) == settings.longest_wait_s / 2


def test_an_error_of_triton_neither_repeats_the_key_nor_writes_to_the_terminal() -> None:
    settings = TritonSettings(endpoints=["host:8001"], admin_key=SecretStr("s3cret"))
    assert settings.redact("\x1b[31mno s3cret\nhere") == "\ufffd[31mno *** here"


def test_an_authority_that_is_not_here_is_named() -> None:
    assert "ca_file = '/none' cannot be read: No such file" in refusal(
        "triton", endpoints=["h:8001"], ca_file="/none"
    )


def test_an_engine_without_calls_for_a_day_is_closed_when_another_opens(tmp_path: Path) -> None:
    now = [0.0]
    opened = Engines(LocalStore(tmp_path), tmp_path / "cache", lambda: now[0])
    old, used, new = (
        runspec(engine={"kind": "simulated", "settings": {"seed": seed}}) for seed in range(3)
    )
    closed = opened.of(old, "verifier")
    kept = opened.of(used, "verifier")
    now[0] = IDLE_S
    assert opened.of(used, "verifier") is kept
    now[0] += 1.0
    opened.of(new, "verifier")
    assert opened.of(used, "verifier") is kept
    assert opened.of(old, "verifier") is not closed
    question = GenerationRequest("id", "m-1", (ChatMessage("user", "Why?"),), Sampling(), 0)
    with pytest.raises(EngineError, match="closed"):
        closed.submit(question)
    opened.close()


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ("no-such-model", r"\[models\] generator: no model in .*no-such-model: config.json"),
        ("runs/r/models/all/000009", r"the store .* has no version 'runs/r/models/all/000009'"),
    ],
)
def test_a_missing_model_folder_is_named_before_the_engine_is_opened(
    engines: Engines, monkeypatch: pytest.MonkeyPatch, model: str, problem: str
) -> None:
    monkeypatch.setattr(engines, "of", lambda *_: pytest.fail("opened"))
    models = dict.fromkeys(MODEL_ROLES, model)
    with pytest.raises(ConfigError, match=problem):
        engines.check(runspec(engine={"kind": "local"}, models=models))
