"""The OpenAI-compatible engine against `transformers serve` with the nano model: a real server, offline, on the CPU.

Needs the packages of `transformers[serving]`: fastapi, uvicorn, openai.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from proofloop.engine.base import ChatMessage, GenerationRequest
from proofloop.engine.openai import OpenAIEngine
from proofloop.engine.openai_settings import OpenAISettings
from proofloop.errors import EngineError
from proofloop.records import Sampling

START_S = 45
LONG = 450  # tokens; the nano model takes 512 with the prompt


@pytest.fixture(scope="module")
def folder() -> Path:
    nano = pytest.importorskip("proofloop_trainer.nano", reason="proofloop-trainer is not installed")
    return Path(nano.base_folder())


@pytest.fixture(scope="module")
def base_url(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    for package in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(package, reason=f"transformers serve needs {package}: pip install 'transformers[serving]'")
    port, log = free_port(), tmp_path_factory.mktemp("serve") / "log"
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder), "--device", "cpu"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("w") as out, subprocess.Popen(command, env=os.environ | offline, stdout=out, stderr=out) as server:
        try:
            wait_until_healthy(server, port, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_healthy(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            httpx.get(f"http://127.0.0.1:{port}/health").raise_for_status()
            return
        except httpx.TransportError:
            time.sleep(0.2)
    pytest.fail(f"transformers serve did not start within {START_S} s:\n{log.read_text()[-3000:]}")


@pytest.fixture
def engine(base_url: str, folder: Path) -> Iterator[OpenAIEngine]:
    engine = OpenAIEngine(OpenAISettings(base_url=base_url, model=str(folder), idle_timeout_s=30, max_attempts=2))
    yield engine
    engine.close()


def ask(seed: int = 1, max_tokens: int = 64, temperature: float = 1.0) -> GenerationRequest:
    messages = (ChatMessage("user", "start 3 +4 *2 mod 7"),)
    sampling = Sampling(max_tokens=max_tokens, temperature=temperature)
    return GenerationRequest(f"generator:{seed}", "nano-base", messages, sampling, seed)


def test_it_answers_and_reports_usage(engine: OpenAIEngine) -> None:
    generation = engine.submit(ask()).result(30)
    assert generation.text
    assert generation.model_version == "nano-base"
    assert generation.prompt_tokens > 0 and 0 < generation.completion_tokens <= 64
    assert generation.tokens is None


def test_a_small_limit_ends_an_answer_by_its_length(engine: OpenAIEngine) -> None:
    generation = engine.submit(ask(max_tokens=2)).result(30)
    assert (generation.finish_reason, generation.completion_tokens) == ("length", 2)


def test_cancelling_frees_the_server(engine: OpenAIEngine) -> None:
    call = engine.submit(ask(max_tokens=LONG))
    call.cancel()
    assert call.result(5).finish_reason == "cancelled"
    assert engine.submit(ask(max_tokens=2)).result(30).completion_tokens == 2


def test_eight_calls_at_once(engine: OpenAIEngine) -> None:
    calls = [engine.submit(ask(seed, max_tokens=16)) for seed in range(8)]
    assert all(call.result(30).text for call in calls)


def test_log_probabilities_are_not_offered_and_not_made_up(base_url: str, folder: Path) -> None:
    engine = OpenAIEngine(OpenAISettings(base_url=base_url, model=str(folder), want_logprobs=True, max_attempts=1))
    generation = engine.submit(ask()).result(30)
    engine.close()
    assert generation.text and generation.tokens is None


def test_another_model_is_refused_for_good(base_url: str) -> None:
    engine = OpenAIEngine(OpenAISettings(base_url=base_url))
    with pytest.raises(EngineError, match="pinned to") as caught:
        engine.submit(ask()).result(30)
    engine.close()
    assert not caught.value.retryable
