"""Adapter versions on a server that answers as vLLM 0.32 does (tests/integration/test_vllm.py)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proofloop.engine.base import GenerationRequest, prepare
from proofloop.engine.openai.endpoints import open_openai
from proofloop.engine.openai.engine import OpenAIEngine
from proofloop.engine.openai.settings import OpenAISettings
from proofloop.errors import AccessRefused, EngineError, NotFound, StoreError
from tests.scripted_openai import Exchange, ScriptedServer, answers
from tests.unit.engine.conftest import ask

VERSIONS = [f"runs/r/models/verifier/{step:06d}" for step in range(1, 5)]
Refusal = tuple[int, object]


def says(status: int, message: str) -> Refusal:
    return status, {"error": {"message": message, "code": status}}


NOT_ENABLED = 404, {"detail": "Not Found"}
TOO_LARGE = says(
    500,
    "Call to add_lora method failed: Worker failed with error 'LoRA rank 32 is greater than"
    " max_lora_rank 16.', please check the stack trace above for the root cause",
)
NO_FOLDER = says(404, "Loading lora n failed: No adapter found for <path>")
DEAD = says(500, "EngineCore encountered an issue")
NO_KEY = 401, {"error": "Unauthorized"}
BUSY = says(503, "starting")


class AdapterServer:
    """The state of a server: its adapters, and how it refuses the next loads."""

    def __init__(self) -> None:
        self.adapters: dict[str, str] = {}
        self.refusals: list[Refusal] = []
        self.loads: list[str] = []
        self.may_load = threading.Event()
        self.may_load.set()

    def __call__(self, exchange: Exchange) -> None:
        body = exchange.body
        if exchange.path.endswith("/load_lora_adapter"):
            self._load(exchange, body["lora_name"], body["lora_path"])
        elif exchange.path.endswith("/unload_lora_adapter"):
            self.adapters.pop(body["lora_name"], None)
            exchange.body_of_bytes(b"Success", "text/plain")
        elif body["model"] in (*self.adapters, "base"):
            answers(f"by {body['model']}")(exchange)
        else:
            problem = {"message": f"The model `{body['model']}` does not exist.", "code": 404}
            exchange.refuse(404, {"error": {**problem, "type": "NotFoundError"}})

    def _load(self, exchange: Exchange, name: str, path: str) -> None:
        self.may_load.wait(10)
        self.loads.append(name)
        if self.refusals:
            exchange.refuse(*self.refusals.pop(0))
        elif name in self.adapters:
            problem = {"message": f"The lora adapter '{name}' has already been loaded."}
            exchange.refuse(400, {"error": {**problem, "code": 400}})
        else:
            self.adapters[name] = path
            exchange.body_of_bytes(b"Success", "text/plain")


@pytest.fixture
def server() -> AdapterServer:
    return AdapterServer()


@pytest.fixture
def url(server: AdapterServer) -> Iterator[str]:
    with ScriptedServer(server, models=["base"]) as scripted:
        yield scripted.base_url


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Each version as an adapter in a folder, named by a digest as in the store."""
    found = {}
    for number, version in enumerate(VERSIONS):
        found[version] = tmp_path / str(number) / f"digest{number}"
        found[version].mkdir(parents=True)
        (found[version] / "adapter_config.json").write_text("{}")
    return found


@pytest.fixture
def connect(url: str, folders: dict[str, Path]) -> Iterator[Callable[..., OpenAIEngine]]:
    engines: list[OpenAIEngine] = []

    def open_one(
        resolve: Callable[[str], Path] = folders.__getitem__, **settings: Any
    ) -> OpenAIEngine:
        usual = {"first_wait_s": 0.01, "idle_timeout_s": 5.0, "max_attempts": 3, "model": "base"}
        fields = {"base_url": url, "load_adapters": True, **usual, **settings}
        engines.append(OpenAIEngine(OpenAISettings(**fields), resolve))
        return engines[-1]

    yield open_one
    for engine in engines:
        engine.close()


def request(version: str, prompt: str = "Prove it.") -> GenerationRequest:
    return GenerationRequest(
        f"verifier:{prompt}", version, ask(prompt).messages, ask().sampling, seed=1
    )


def answer(engine: OpenAIEngine, version: str) -> str:
    return engine.submit(request(version)).result(10).text


def failure(engine: OpenAIEngine, version: str) -> EngineError:
    with pytest.raises(EngineError) as caught:
        engine.submit(request(version)).result(10)
    return caught.value


def test_versions_are_called_by_their_own_names_and_other_models_by_the_set_one(
    connect: Callable[..., OpenAIEngine], server: AdapterServer, folders: dict[str, Path]
) -> None:
    engine = connect()
    texts = [answer(engine, version) for version in ("start", *VERSIONS[:2], "start")]
    names = [f"{version}-digest{number}" for number, version in enumerate(VERSIONS[:2])]
    assert texts == ["by base", f"by {names[0]}", f"by {names[1]}", "by base"]
    assert server.adapters == {name: str(folders[name[:-8]]) for name in names}


def test_a_version_with_a_served_name_is_not_loaded(
    connect: Callable[..., OpenAIEngine], server: AdapterServer
) -> None:
    engine = connect(model=None, models={VERSIONS[0]: "base"})
    assert answer(engine, VERSIONS[0]) == "by base"
    assert server.loads == []


def test_many_callers_and_processes_load_a_version_once(
    connect: Callable[..., OpenAIEngine], server: AdapterServer
) -> None:
    first, other = connect(), connect()
    server.may_load.clear()
    calls = [first.submit(request(VERSIONS[0], str(number))) for number in range(20)]
    time.sleep(0.2)
    server.may_load.set()
    assert {call.result(10).text for call in calls} == {f"by {VERSIONS[0]}-digest0"}
    assert server.loads == [f"{VERSIONS[0]}-digest0"]
    assert answer(other, VERSIONS[0]) == f"by {VERSIONS[0]}-digest0"  # already loaded there


def test_a_canceled_caller_leaves_the_loading_to_the_others(
    connect: Callable[..., OpenAIEngine], server: AdapterServer
) -> None:
    engine = connect()
    server.may_load.clear()
    canceled, waiting = (engine.submit(request(VERSIONS[0], each)) for each in "ab")
    time.sleep(0.2)
    canceled.cancel()
    assert canceled.result(5).finish_reason == "cancelled"
    server.may_load.set()
    assert waiting.result(10).text.startswith("by runs/")
    assert len(server.loads) == 1


def test_a_restarted_server_gets_its_adapters_again(
    connect: Callable[..., OpenAIEngine], server: AdapterServer
) -> None:
    engine = connect()
    answer(engine, VERSIONS[0])
    server.adapters.clear()
    calls = [engine.submit(request(VERSIONS[0], str(number))) for number in range(8)]
    assert {call.result(10).text for call in calls} == {f"by {VERSIONS[0]}-digest0"}
    assert len(server.adapters) == 1


@pytest.mark.usefixtures("quiet_log")
def test_an_adapter_that_is_lost_again_and_again_ends_the_call(
    connect: Callable[..., OpenAIEngine], server: AdapterServer
) -> None:
    class Forgetful(dict[str, str]):
        def __setitem__(self, *_: str) -> None:
            """Forget it."""

    server.adapters = Forgetful()
    error = failure(connect(), VERSIONS[0])
    assert error.retryable and "has lost the adapter" in str(error)
    assert len(server.loads) <= 6


def test_the_least_recently_used_idle_versions_are_unloaded(
    connect: Callable[..., OpenAIEngine], server: AdapterServer
) -> None:
    engine = connect(adapters_kept=2)
    for version in (VERSIONS[0], VERSIONS[1], VERSIONS[0], VERSIONS[2]):
        answer(engine, version)
    assert set(server.adapters) == {f"{VERSIONS[0]}-digest0", f"{VERSIONS[2]}-digest2"}
    assert answer(engine, VERSIONS[1]).startswith("by runs/")
    assert len(server.adapters) == 2


@pytest.mark.parametrize(
    ("refusal", "problem", "hint"),
    [
        (NOT_ENABLED, "status 404: Not Found", "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"),
        (TOO_LARGE, "LoRA rank 32 is greater", "--max-lora-rank, or lower"),
        (NO_FOLDER, "No adapter found", "same path"),
    ],
)
def test_an_adapter_that_the_server_cannot_load_is_refused_at_once(
    connect: Callable[..., OpenAIEngine],
    server: AdapterServer,
    refusal: Refusal,
    problem: str,
    hint: str,
) -> None:
    server.refusals = [refusal]
    engine = connect()
    error = failure(engine, VERSIONS[0])
    assert problem in str(error) and hint in error.hint and not error.retryable
    assert len(server.loads) == 1
    server.refusals = [refusal]
    with pytest.raises(EngineError, match=problem):
        prepare(engine, VERSIONS[0])
    assert answer(engine, "start") == "by base"


def test_a_wrong_key_is_named(connect: Callable[..., OpenAIEngine], server: AdapterServer) -> None:
    server.refusals = [NO_KEY] * 9
    error = failure(connect(), VERSIONS[0])
    assert isinstance(error, AccessRefused) and "PROOFLOOP_OPENAI_API_KEY" in error.hint


@pytest.mark.parametrize("refusal", [BUSY, DEAD])
def test_a_server_that_is_away_for_a_moment_is_asked_again(
    connect: Callable[..., OpenAIEngine], server: AdapterServer, refusal: Refusal
) -> None:
    server.refusals = [refusal]
    assert answer(connect(), VERSIONS[0]) == f"by {VERSIONS[0]}-digest0"
    server.refusals = [refusal]
    with pytest.raises(EngineError) as caught:
        prepare(connect(), VERSIONS[1])
    assert caught.value.retryable


@pytest.mark.usefixtures("quiet_log")
def test_a_server_that_hangs_while_it_loads_counts_as_silent(
    connect: Callable[..., OpenAIEngine], server: AdapterServer
) -> None:
    server.may_load.clear()
    error = failure(connect(idle_timeout_s=0.2, max_attempts=1), VERSIONS[0])
    server.may_load.set()
    assert error.retryable and "no answer to POST load_lora_adapter" in str(error)


@pytest.mark.parametrize(("error", "is_retryable"), [(StoreError, True), (NotFound, False)])
def test_a_version_that_cannot_be_fetched(
    connect: Callable[..., OpenAIEngine], error: type[Exception], is_retryable: bool
) -> None:
    def resolve(version: str) -> Path:
        raise error("the store said no")

    found = failure(connect(resolve), VERSIONS[0])
    assert found.retryable == is_retryable and "the store said no" in str(found)


def test_a_version_with_all_weights_is_refused(
    connect: Callable[..., OpenAIEngine], tmp_path: Path
) -> None:
    error = failure(connect(lambda _: tmp_path), VERSIONS[0])
    assert "has all weights" in str(error) and "[lora]" in error.hint


def test_each_endpoint_loads_the_versions_that_it_is_asked_for(
    url: str, server: AdapterServer, folders: dict[str, Path]
) -> None:
    second = AdapterServer()
    with ScriptedServer(second, models=["base"]) as other:
        tables = [{"base_url": url}, {"base_url": other.base_url}]
        settings = {"endpoints": tables, "load_adapters": True, "model": "base"}
        engine = open_openai(settings, folders.__getitem__)
        for seed in range(16):
            named = GenerationRequest(
                f"verifier:{seed}", VERSIONS[0], ask().messages, ask().sampling, seed
            )
            assert engine.submit(named).result(10).text == f"by {VERSIONS[0]}-digest0"
        engine.close()
    assert len(server.loads) == len(second.loads) == 1
