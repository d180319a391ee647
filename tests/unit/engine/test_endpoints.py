"""Several endpoints of one role: who gets which call, and who answers while one is away."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from proofloop.config.run_file import RunSpec
from proofloop.engine.base import ChatMessage, Engine, Generation, GenerationRequest
from proofloop.engine.endpoints import (
    UNAVAILABLE_S,
    Endpoint,
    EndpointHealth,
    EndpointsEngine,
    in_order,
)
from proofloop.engine.openai.endpoints import open_openai
from proofloop.engine.simulated.answers import SimulatedSettings
from proofloop.engine.simulated.engine import SimulatedEngine
from proofloop.errors import AccessRefused, CallRefused, ConfigError, EngineError
from proofloop.schema.records import Sampling
from proofloop.worker.engine_pool import Engines
from tests.builders import runspec
from tests.scripted_openai import Script, ScriptedServer, answers, refuses
from tests.unit.engine.test_rate_limits import Clock


def endpoints(**weights: float) -> tuple[Endpoint, ...]:
    engine = SimulatedEngine(SimulatedSettings())
    return tuple(Endpoint(name, engine, weight) for name, weight in weights.items())


def request(seed: int = 7) -> GenerationRequest:
    return GenerationRequest(
        "r", "m", (ChatMessage("user", "Prove it."),), Sampling(max_tokens=10), seed
    )


def test_calls_are_shared_by_weight() -> None:
    given = Counter(in_order(endpoints(a=3, b=1), seed)[0].name for seed in range(4000))
    assert abs(given["a"] - 3000) < 100


def test_an_endpoint_that_goes_moves_no_call_of_the_others() -> None:
    three, two = endpoints(a=1, b=2, c=1), endpoints(a=1, b=2)
    for seed in range(200):
        first = in_order(three, seed)[0].name
        assert first == "c" or in_order(two, seed)[0].name == first


def test_an_absent_endpoint_comes_last_for_a_while_and_longer_each_time() -> None:
    clock, (a, b) = Clock(), endpoints(a=1, b=1)
    health, away = EndpointHealth(clock), EngineError("away", retryable=True)
    health.record_failure(a, away)
    health.record_failure(a, away)  # of a call that began before
    assert health.available_first([a, b]) == [b, a]
    clock.now_s += UNAVAILABLE_S
    assert health.available_first([a, b]) == [a, b]
    health.record_failure(a, away)
    clock.now_s += UNAVAILABLE_S
    assert health.available_first([a, b]) == [b, a]
    clock.now_s += UNAVAILABLE_S
    health.record_answer(a)
    health.record_failure(a, away)
    clock.now_s += UNAVAILABLE_S
    assert health.available_first([a, b]) == [a, b]


# -- with servers
# --------------------------------------------------------------------------------------------------


def ask(engine: Engine, seed: int) -> Generation:
    return engine.submit(request(seed)).result(30)


def open_both(first: ScriptedServer, second: ScriptedServer, **settings: object) -> Engine:
    common = {"max_attempts": 1, "first_wait_s": 0.01, **settings}
    return open_openai(
        {**common, "endpoints": [{"base_url": server.base_url} for server in (first, second)]}
    )


def test_the_same_call_goes_to_the_same_endpoint_and_says_which() -> None:
    with ScriptedServer(answers()) as first, ScriptedServer(answers()) as second:
        for _ in range(2):
            engine = open_both(first, second)
            served = [ask(engine, seed).served_by for seed in range(12)]
            engine.close()
    names = [f"m at {server.base_url.split('/')[2]}" for server in (first, second)]
    assert set(served) == {*names}
    assert [len(server.received) for server in (first, second)] == [
        2 * served.count(name) for name in names
    ]


@pytest.mark.parametrize(
    "failing", [refuses(503, "loading"), refuses(401, "no"), refuses(404, "no such model")]
)
def test_another_endpoint_answers_while_one_is_away(failing: Script) -> None:
    with ScriptedServer(failing) as absent, ScriptedServer(answers()) as present:
        engine = open_both(absent, present)
        assert all(ask(engine, seed).text == "It holds." for seed in range(12))
        engine.close()
    assert len(present.received) == 12
    assert sum("model" in each.body for each in absent.received) <= 2  # one call, and a probe


def test_a_refused_call_is_not_asked_elsewhere() -> None:
    too_long = refuses(400, {"error": {"message": "the prompt is too long"}})
    with ScriptedServer(too_long) as first, ScriptedServer(too_long) as second:
        engine = open_both(first, second)
        with pytest.raises(CallRefused, match="too long"):
            ask(engine, 1)
        engine.close()
    assert len(first.received) + len(second.received) == 1


def test_where_all_endpoints_fail_the_error_that_passes_is_raised() -> None:
    with (
        ScriptedServer(refuses(401, "no")) as first,
        ScriptedServer(refuses(503, "loading")) as second,
    ):
        engine = open_both(first, second)
        for seed in range(4):
            with pytest.raises(EngineError, match="loading") as caught:
                ask(engine, seed)
            assert caught.value.retryable
        engine.close()


def test_where_no_endpoint_grants_access_the_process_has_none() -> None:
    with ScriptedServer(refuses(401, "no")) as first, ScriptedServer(refuses(403, "no")) as second:
        engine = open_both(first, second)
        with pytest.raises(AccessRefused):
            ask(engine, 1)
        engine.close()


def test_a_cancelled_call_is_not_asked_elsewhere() -> None:
    with ScriptedServer(lambda exchange: exchange.stall_until_client_leaves()) as first:
        two_models = [{"base_url": first.base_url, "model": name} for name in ("x", "y")]
        engine = open_openai({"endpoints": two_models})
        call = engine.submit(request())
        assert not first.client_left.wait(0.2)
        call.cancel()
        assert call.result(10).finish_reason == "cancelled"
        engine.close()
    assert len(first.received) == 1


# -- settings
# --------------------------------------------------------------------------------------------------


def refusal(**settings: object) -> str:
    with pytest.raises(ConfigError) as caught:
        open_openai(settings)
    return str(caught.value)


def test_endpoints_are_checked_where_they_enter() -> None:
    one = {"base_url": "http://a/v1"}
    assert "both base_url and endpoints are set" in refusal(base_url="http://a/v1", endpoints=[one])
    assert "endpoints must be a list of tables" in refusal(endpoints=["http://a/v1"])
    assert "endpoints must be a list of tables" in refusal(endpoints=[])
    assert "endpoints[1]: weight = 0: must be above 0" in refusal(
        endpoints=[one, {**one, "weight": 0}]
    )
    assert "endpoints[1] and endpoints[0] are the same" in refusal(
        endpoints=[one, {**one, "weight": 2}]
    )
    assert 'openai: endpoints[0]: unknown key "wieght"' in refusal(endpoints=[{**one, "wieght": 1}])
    assert 'endpoints[0]: missing key "base_url"' in refusal(endpoints=[{"weight": 1}])


def test_an_endpoint_sends_the_key_that_it_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "proofloop_openai_api_key_c").write_text("sk-c\n")
    monkeypatch.setenv("PROOFLOOP_SECRETS", str(tmp_path))
    monkeypatch.setenv("PROOFLOOP_OPENAI_API_KEY", "sk-all")
    monkeypatch.setenv("PROOFLOOP_OPENAI_API_KEY_B", "sk-b")
    sent = []
    for named in (
        {},
        *(
            {"api_key_env": name}
            for name in ("PROOFLOOP_OPENAI_API_KEY_B", "PROOFLOOP_OPENAI_API_KEY_C", "")
        ),
    ):
        with ScriptedServer(answers()) as server:
            engine = open_openai({"base_url": server.base_url, **named})
            ask(engine, 1)
            engine.close()
            sent.append(server.received[0].headers.get("authorization"))
    assert sent == ["Bearer sk-all", "Bearer sk-b", "Bearer sk-c", None]


def test_a_file_with_a_key_that_is_no_text_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "proofloop_openai_api_key_b").write_bytes(b"sk-1\xff")
    monkeypatch.setenv("PROOFLOOP_SECRETS", str(tmp_path))
    said = refusal(base_url="http://a/v1", api_key_env="PROOFLOOP_OPENAI_API_KEY_B")
    assert "proofloop_openai_api_key_b cannot be read" in said and "sk-1" not in said


def test_no_other_variable_is_sent_and_a_key_in_its_place_is_not_repeated() -> None:
    said = refusal(base_url="http://a/v1", api_key_env="PROOFLOOP_S3_SECRET_KEY")
    assert "api_key_env: must be PROOFLOOP_OPENAI_API_KEY or a variable" in said
    assert "sk-1234" not in refusal(base_url="http://a/v1", api_key_env="sk-1234")


def test_a_server_that_wants_a_key_names_the_variable_of_the_setting() -> None:
    with ScriptedServer(refuses(401, "no")) as server:
        engine = open_openai(
            {"base_url": server.base_url, "api_key_env": "PROOFLOOP_OPENAI_API_KEY_B"}
        )
        with pytest.raises(AccessRefused) as caught:
            ask(engine, 1)
        engine.close()
    assert caught.value.hint == "set PROOFLOOP_OPENAI_API_KEY_B to a key of this server"


# -- an engine a role
# --------------------------------------------------------------------------------------------------


def by_role(server: ScriptedServer, verifier: dict[str, object]) -> RunSpec:
    settings = {"base_url": server.base_url, "max_attempts": 1}
    return runspec(engine={"kind": "openai", "settings": settings, "verifier": verifier})


def test_roles_with_equal_engines_share_one(engines: Engines) -> None:
    with ScriptedServer(answers()) as server:
        spec = by_role(server, {"settings": {"extra_body": {"top_k": 5}}})
        assert engines.of(spec, "generator") is engines.of(spec, "meta_verifier")
        ask(engines.of(spec, "verifier"), 1)
        ask(engines.of(spec, "generator"), 1)
    assert ["top_k" in each.body for each in server.received] == [True, False]


def test_engines_of_one_account_share_its_rate_limits(engines: Engines) -> None:
    with ScriptedServer(answers()) as server:
        limits = {"requests_per_minute": 100.0}
        settings = {"base_url": server.base_url, **limits}
        own = {"settings": {"extra_body": {"top_k": 5}}}
        spec = runspec(engine={"kind": "openai", "settings": settings, "verifier": own})
        for number in range(4):  # 100 a minute are one each 0.6 s
            ask(engines.of(spec, "verifier" if number % 2 else "generator"), number)
        times = [each.at_s for each in server.received]
    assert times[-1] - times[0] > 0.9  # the first second's worth goes at once


def test_a_wrong_setting_of_a_role_is_named_with_its_table(engines: Engines) -> None:
    spec = runspec(engine={"kind": "simulated", "verifier": {"settings": {"good_share": 2}}})
    engines.of(spec, "generator")
    with pytest.raises(ConfigError, match=r"^\[engine.verifier\] simulated: good_share = 2: "):
        engines.of(spec, "verifier")


def test_a_check_asks_each_role_at_its_own_server(engines: Engines) -> None:
    with (
        ScriptedServer(answers()) as common,
        ScriptedServer(refuses(404, "no such model")) as other,
    ):
        spec = by_role(common, {"settings": {"base_url": other.base_url}})
        with pytest.raises(
            ConfigError, match=r"engine 'openai' of the verifier cannot answer with .*no such model"
        ):
            engines.check(spec)
        engines.check(spec, roles=["generator", "meta_verifier"])


def test_a_check_passes_while_one_endpoint_answers_and_fails_where_one_refuses(
    engines: Engines,
) -> None:
    def spec(second: ScriptedServer) -> RunSpec:
        both = [{"base_url": server.base_url} for server in (here, second)]
        return by_role(here, {"settings": {"endpoints": both}})

    with (
        ScriptedServer(answers()) as here,
        ScriptedServer(refuses(503)) as away,
        ScriptedServer(refuses(401)) as closed,
    ):
        engines.check(spec(away))
        with pytest.raises(ConfigError, match="status 401"):
            engines.check(spec(closed))
    assert isinstance(engines.of(spec(away), "verifier"), EndpointsEngine)
