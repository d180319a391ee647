"""The engine `triton` on a real Triton server, with a model that the prompt scripts: ours, and a
double of `llmapi`.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from tritonclient.grpc import InferenceServerClient

from proofloop.engine import open_engine
from proofloop.engine.base import ChatMessage, GenerationRequest
from proofloop.engine.triton import replica
from proofloop.engine.triton.answer import read_tensor
from proofloop.engine.triton.call import TritonCall
from proofloop.engine.triton.contract import triton_name
from proofloop.engine.triton.engine import TritonEngine
from proofloop.engine.triton.replicas import Replicas
from proofloop.engine.triton.settings import TritonSettings
from proofloop.errors import CallRefused, EngineError
from proofloop.schema.records import Sampling
from tests.integration.certificates import make_certificates
from tests.integration.triton_server import Triton, own_triton
from tests.scripted_triton import lay_model, scripted_model
from tests.waiting import wait_until

OpenTriton = Callable[..., TritonEngine]


@pytest.fixture
def opened(triton: Triton) -> Iterator[OpenTriton]:
    """Opens engines on the server and closes them; its models are unloaded."""
    with ExitStack() as stack:
        stack.callback(unload_all, triton)

        def open_one(**settings: object) -> TritonEngine:
            model_file = settings.pop("model_file", scripted_model())
            settings = {
                "endpoints": [triton.endpoint],
                "model_file": model_file,
                "idle_timeout_s": 20.0,
                **settings,
            }
            engine = open_engine("triton", settings, lambda version: Path())
            assert isinstance(engine, TritonEngine)
            stack.callback(engine.close)
            return engine

        yield open_one


def unload_all(triton: Triton) -> None:
    with InferenceServerClient(triton.endpoint) as client:
        for name in loaded(triton):
            client.unload_model(name)


def loaded(triton: Triton) -> list[str]:
    with InferenceServerClient(triton.endpoint) as client:
        return sorted(each.name for each in client.get_inference_statistics().model_stats)


def of_run_a(triton: Triton) -> list[str]:
    """What is loaded of a run; the server is shared with other tests, and keeps theirs."""
    return [name for name in loaded(triton) if name.startswith("runs.a.")]


def ask(
    text: str = "Prove it.",
    *,
    model: str = "",
    seed: int = 7,
    max_tokens: int = 4,
    affinity: str = "",
) -> GenerationRequest:
    return GenerationRequest(
        id=f"verifier:p:{uuid.uuid4().hex[:8]}",
        model=model or "nano",
        messages=(ChatMessage("user", text),),
        sampling=Sampling(max_tokens=max_tokens),
        seed=seed,
        affinity=affinity,
    )


def test_an_answer_brings_its_tokens_counts_and_version(opened: OpenTriton) -> None:
    answer = opened().submit(ask("think", model="runs/a/models/verifier/000001")).result(30)
    assert (answer.text, answer.reasoning, answer.finish_reason) == ("7 7 7 7 ", "hmm", "length")
    assert (answer.prompt_tokens, answer.completion_tokens, answer.engine_seconds) == (3, 4, 0.5)
    assert answer.cached_tokens == 2
    assert answer.model_version == "runs/a/models/verifier/000001"
    assert (
        answer.tokens
        and answer.tokens.completion_ids == (5, 5, 5, 5)
        and answer.tokens.logprobs == (-0.25,) * 4
    )


def test_a_foreign_model_is_given_a_rendered_prompt(
    opened: OpenTriton, triton: Triton, tmp_path: Path
) -> None:
    assert triton.repository
    lay_model(triton.repository, "tensorrt_llm", scripted_model(is_ours=False))
    with InferenceServerClient(triton.endpoint) as client:
        client.load_model("tensorrt_llm")
    template = tmp_path / "template.jinja"
    template.write_text(
        "{{ bos }}{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor"
        " %}"
    )
    foreign = {"model": "tensorrt_llm", "chat_template_values": {"bos": "!"}}
    engine = opened(**foreign, chat_template=str(template))
    answer = engine.submit(ask("Prove it.")).result(30)
    assert (answer.text, answer.tokens, answer.model_version) == ("7 7 7 7 ", None, "nano")
    assert answer.prompt_tokens > 0 and answer.completion_tokens >= 4 and answer.engine_seconds > 0
    with pytest.raises(EngineError, match="timeout") as caught:
        engine.submit(ask("reason=timeout reason=timeout")).result(30)
    assert caught.value.retryable
    with pytest.raises(CallRefused):
        engine.submit(ask("too llmapi-refuse long")).result(30)
    template.write_text("{{ raise_exception('no such role') }}")
    for words, engine_of, problem in (
        ("now garble", engine, "'tensorrt_llm' is unreadable: could not convert string to float"),
        ("Prove it.", opened(**foreign), "chat_template is not set"),
        ("Prove it.", opened(**foreign, chat_template=str(template)), "no such role"),
    ):
        with pytest.raises(EngineError, match=problem) as caught:
            engine_of.submit(ask(words)).result(30)
        assert not caught.value.retryable and not isinstance(caught.value, CallRefused)


@pytest.mark.parametrize(
    ("datatype", "raw"), [("FP16", b""), ("BYTES", b"abc"), ("BYTES", b"\1\0\0"), ("INT32", b"abc")]
)
def test_a_tensor_of_another_kind_or_cut_short_is_no_answer(datatype: str, raw: bytes) -> None:
    with pytest.raises(ValueError, match=datatype):
        read_tensor(datatype, raw)


def test_known_servers_are_asked_while_their_name_cannot_be_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lookups: list[str] = []

    async def no_such_name(self: object, host: str, *_: object, **__: object) -> None:
        lookups.append(host)
        raise socket.gaierror("Temporary failure in name resolution")

    async def use() -> None:
        settings = TritonSettings(endpoints=["localhost:1", "127.0.0.1:2"], resolve_every_s=0.2)
        replicas = Replicas(settings)
        known = {
            (await replicas.choose(f"proof-{number}", "nano", ())).address for number in range(50)
        }
        assert len(known) == 2
        await asyncio.sleep(0.3)
        monkeypatch.setattr("asyncio.base_events.BaseEventLoop.getaddrinfo", no_such_name)
        found = await asyncio.gather(
            *(replicas.choose(f"proof-{number}", "nano", ()) for number in range(50))
        )
        assert {replica.address for replica in found} == known
        await replicas.close()

    asyncio.run(use())
    assert lookups == ["localhost", "127.0.0.1"]


def test_a_version_that_another_process_unloaded_is_loaded_again(
    opened: OpenTriton, triton: Triton
) -> None:
    version = "runs/a/models/verifier/000001"
    engine = opened(max_attempts=2, first_wait_s=0.01)
    engine.prepare(version)
    with InferenceServerClient(triton.endpoint) as client:
        client.unload_model(triton_name(version))
    assert engine.submit(ask(model=version)).result(30).model_version == version


def test_silence_ends_a_call_and_frees_its_slot(opened: OpenTriton) -> None:
    engine = opened(idle_timeout_s=1.0, model_file=scripted_model(slots=1))
    engine.prepare("nano")
    for words in ("hang", "stall"):
        with pytest.raises(EngineError, match="idle_timeout_s") as caught:
            engine.submit(ask(words)).result(30)
        assert caught.value.retryable
    # Takes longer than the time-out, but is never silent.
    long_answer = engine.submit(ask(max_tokens=300)).result(30)
    assert long_answer.completion_tokens == 300


def test_a_cancelled_call_frees_its_slot(opened: OpenTriton) -> None:
    engine = opened(model_file=scripted_model(slots=1))
    engine.prepare("nano")
    call = engine.submit(ask("stall"))
    assert isinstance(call, TritonCall)
    assert wait_until(lambda: call.answer.text == "7 ", 60)
    call.cancel()
    answer = call.result(10)
    assert (answer.finish_reason, answer.text, answer.tokens) == ("cancelled", "7 ", None)
    # Idle_timeout_s = 20 would free the slot too.
    assert engine.submit(ask()).result(10).finish_reason == "length"


def test_what_began_to_come_is_not_asked_again(opened: OpenTriton) -> None:
    with pytest.raises(EngineError, match="the answer had begun") as caught:
        opened().submit(ask("break")).result(30)
    assert caught.value.retryable


def test_an_error_before_the_answer_is_tried_again(opened: OpenTriton) -> None:
    with pytest.raises(EngineError, match=r"something broke.*attempt 3 of max_attempts = 3"):
        opened(max_attempts=3, first_wait_s=0.01).submit(ask("fail")).result(30)


def test_a_version_that_cannot_be_loaded_leaves_the_others(opened: OpenTriton) -> None:
    engine = opened()
    good, broken = "runs/a/models/verifier/000001", "runs/a/models/verifier/broken"
    engine.prepare(good)
    with pytest.raises(
        EngineError, match="the weights of runs/a/models/verifier/broken are damaged"
    ) as caught:
        engine.prepare(broken)
    assert not caught.value.retryable
    assert engine.submit(ask(model=good)).result(30).model_version == good


def test_versions_of_a_run_asked_longest_ago_are_unloaded_and_come_back(
    opened: OpenTriton, triton: Triton
) -> None:
    v1, v2, v3 = (f"runs/a/models/1-verifier/{number:06d}" for number in range(1, 4))
    g1, g2 = (f"runs/a/models/1-generator/{number:06d}" for number in range(1, 3))
    others = ["nano", "runs/b/models/1-verifier/000001"]
    engine, of_another_role = opened(keep_versions=3), opened(keep_versions=3)
    for version in (*others, v1):
        engine.prepare(version)
    running = engine.submit(ask(model=v1, max_tokens=10_000))
    engine.prepare(v2)
    engine.prepare(v3)
    of_another_role.submit(ask(model=v2)).result(30)
    for version, left in ((g1, [g1, v1, v2]), (g2, [g1, g2, v1])):
        assert engine.submit(ask(model=version)).result(30).model_version == version
        assert of_run_a(triton) == [triton_name(each) for each in left]
    running.cancel()
    assert running.result(30).finish_reason == "cancelled"
    assert engine.submit(ask(model=v3)).result(30).model_version == v3
    assert of_run_a(triton) == [triton_name(each) for each in (g1, g2, v3)]
    assert {triton_name(each) for each in others} <= set(loaded(triton))


def test_versions_of_runs_that_are_over_are_unloaded(
    opened: OpenTriton, triton: Triton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "OTHER_RUNS_S", 5.0)
    before, running, now = (f"runs/{run}/models/verifier/000001" for run in ("a", "b", "c"))
    engine, of_others = opened(), opened()
    engine.prepare(before)
    call = engine.submit(ask(model=running, max_tokens=10_000))
    assert wait_until(lambda: triton_name(running) in loaded(triton), 30)
    time.sleep(5.5)
    of_others.prepare("nano")
    assert triton_name(before) in loaded(triton), "another process loaded it"
    engine.prepare(now)
    kept = set(loaded(triton))
    assert triton_name(before) not in kept
    assert kept >= {triton_name(each) for each in ("nano", running, now)}
    call.cancel()


def test_many_callers_load_a_version_once(opened: OpenTriton, triton: Triton) -> None:
    first, second = opened(), opened()
    calls = [engine.submit(ask(model="slow")) for engine in (first, second) for _ in range(20)]
    assert {call.result(30).text for call in calls} == {"7 7 7 7 "}


def test_a_model_that_may_not_be_loaded_is_not_found(opened: OpenTriton) -> None:
    with pytest.raises(EngineError, match="has 'nano'") as caught:
        opened(load_models=False, max_attempts=2).submit(ask()).result(30)
    assert caught.value.retryable


def test_a_restarted_server_is_used_again(opened: OpenTriton, triton: Triton) -> None:
    if not triton.kill or not triton.start:
        pytest.skip("PROOFLOOP_TEST_TRITON is not ours to kill")
    engine = opened(max_attempts=2)
    engine.prepare("nano")
    calls = [engine.submit(ask("stall")) for _ in range(8)]
    time.sleep(0.5)
    triton.kill()
    for call in calls:
        with pytest.raises(EngineError) as caught:
            call.result(20)
        assert caught.value.retryable
    with pytest.raises(EngineError) as caught:
        engine.submit(ask()).result(20)
    assert caught.value.retryable
    triton.start()
    patient = opened(max_attempts=10)
    for each in (patient, engine):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                assert each.submit(ask()).result(20).text == "7 7 7 7 "
                break
            except EngineError as error:
                assert error.retryable
        else:
            pytest.fail("the engine does not find its server again")


def test_calls_of_one_proof_share_a_server_until_it_has_too_many(triton: Triton) -> None:
    with own_triton() as second:
        settings = {"endpoints": [triton.endpoint, second.endpoint], "model_file": scripted_model()}
        engine = open_engine("triton", settings, lambda version: Path())
        counts = lambda: [answered(each) for each in (triton, second)]  # noqa: E731
        try:
            engine.prepare("nano")
            before = counts()
            for _ in range(6):
                engine.submit(ask(affinity="proof-1")).result(30)
            alone = [now - then for now, then in zip(counts(), before, strict=True)]
            assert sorted(alone) == [0, 6]
            calls = [engine.submit(ask(affinity="proof-1", max_tokens=40)) for _ in range(40)]
            for call in calls:
                call.result(30)
            loads = [now - then for now, then in zip(counts(), before, strict=True)]
            assert min(loads) >= 10 and sum(loads) == 46
            assert second.kill
            second.kill()
            for number in range(6):
                engine.submit(ask(affinity=f"proof-{number}")).result(30)
        finally:
            engine.close()
            unload_all(triton)


def answered(triton: Triton) -> int:
    with InferenceServerClient(triton.endpoint) as client:
        return sum(
            each.execution_count for each in client.get_inference_statistics("nano").model_stats
        )


def test_a_restricted_server_asks_for_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with own_triton("--grpc-restricted-protocol=model-repository:admin-key=s3cret") as guarded:
        settings = {"endpoints": [guarded.endpoint], "model_file": scripted_model()}
        for key, works in (("wrong-key", False), ("s3cret", True)):
            monkeypatch.setenv("PROOFLOOP_TRITON_KEY", key)
            engine = open_engine("triton", settings, lambda version: Path())
            if works:
                assert engine.submit(ask()).result(30).text == "7 7 7 7 "
            else:
                with pytest.raises(EngineError) as caught:
                    engine.submit(ask()).result(30)
                assert not caught.value.retryable and key not in str(caught.value)
            engine.close()


def test_a_connection_is_encrypted_and_the_server_is_checked(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    own, other = (make_certificates(folder) for folder in (tmp_path, tmp_path / "other"))
    files = (f"--grpc-server-cert={own.certificate}", f"--grpc-server-key={own.key}")
    with own_triton("--grpc-use-ssl=1", *files, ca=own.ca) as encrypted:
        port = encrypted.endpoint.rpartition(":")[2]
        for trusted, problem in ((own.ca, ""), (other.ca, "CERTIFICATE"), (None, "closed")):
            engine = TritonEngine(
                TritonSettings(
                    endpoints=[f"localhost:{port}"],
                    model_file=scripted_model(),
                    ca_file=trusted,
                    max_attempts=1,
                )
            )
            call = engine.submit(ask())
            if problem:
                with pytest.raises(EngineError, match=problem):
                    call.result(30)
            else:
                assert call.result(30).text == "7 7 7 7 "
            engine.close()


def test_a_thousand_calls_run_on_a_few_threads(opened: OpenTriton) -> None:
    engine = opened(max_concurrency=2000)
    engine.prepare("nano")
    engine.submit(ask()).result(30)
    before = threading.active_count()
    calls = [engine.submit(replace(ask("hang"), seed=number)) for number in range(1000)]
    time.sleep(3)
    assert threading.active_count() - before <= 2
    for call in calls:
        call.cancel()
    assert Counter(call.result(60).finish_reason for call in calls) == {"cancelled": 1000}
    assert engine.submit(ask()).result(60).text == "7 7 7 7 "


def test_a_server_that_is_asked_to_end_after_its_calls_ends() -> None:
    with own_triton("--exit-timeout-secs=600") as own:
        settings = TritonSettings(endpoints=[own.endpoint], model_file=scripted_model())
        engine = TritonEngine(settings)
        calls = [engine.submit(ask()) for _ in range(64)]
        assert Counter(call.result(60).finish_reason for call in calls) == {"length": 64}
        assert own.stop
        began = time.monotonic()
        own.stop()  # kills the server after 20 s
        assert time.monotonic() - began < 15
        engine.close()
