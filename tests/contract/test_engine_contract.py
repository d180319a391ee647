"""The contract of an engine, run on each: OpenAI-compatible (on a scripted server), simulated,
local, and Triton.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from proofloop.engine import open_engine
from proofloop.engine.base import ChatMessage
from proofloop.testing.engine import EngineContract, EngineSubject
from tests.integration.triton_server import Triton
from tests.nano_base import nano_base_folder
from tests.scripted_openai import Exchange, ScriptedServer
from tests.scripted_triton import scripted_model


def speak(exchange: Exchange) -> None:
    """A model that says its seed over and over, a word every few milliseconds."""
    if exchange.body["model"] == "missing":
        return exchange.refuse(404, {"error": {"message": "no model named missing"}})
    exchange.begin()
    exchange.event(choices=[], prompt_token_ids=[1, 2, 3])
    for _ in range(exchange.body["max_tokens"]):
        entries = [{"token": "x", "logprob": -0.25}]
        exchange.say(f"{exchange.body['seed']} ", token_ids=[5], logprobs={"content": entries})
        time.sleep(0.005)
    exchange.finish("length", completion_tokens=exchange.body["max_tokens"])


@contextmanager
def openai() -> Iterator[EngineSubject]:
    with ScriptedServer(speak) as server:
        settings = {"base_url": server.base_url, "want_logprobs": True, "idle_timeout_s": 5}
        engine = open_engine("openai", settings, no_models)
        yield EngineSubject(engine, "prover-7", lambda request: replace(request, model="missing"))
        engine.close()


@contextmanager
def simulated() -> Iterator[EngineSubject]:
    engine = open_engine("simulated", {"latency_s": 0.05, "want_tokens": True}, no_models)
    yield EngineSubject(engine, "any", lambda request: replace(request, id="nobody:p:1"))
    engine.close()


@contextmanager
def local() -> Iterator[EngineSubject]:
    pytest.importorskip("proofloop_serving", reason="proofloop-serving is not installed")
    folder = nano_base_folder()
    engine = open_engine("local", {}, lambda version: folder)
    too_long = (ChatMessage("user", "2 + 2 = 4. " * 20_000),)
    yield EngineSubject(engine, "nano-base", lambda request: replace(request, messages=too_long))
    engine.close()


@contextmanager
def on_triton(server: Triton) -> Iterator[EngineSubject]:
    settings = {
        "endpoints": [server.endpoint],
        "model_file": scripted_model(),
        "idle_timeout_s": 20,
    }
    engine = open_engine("triton", settings, no_models)
    refused = (ChatMessage("user", "refuse"),)
    yield EngineSubject(
        engine,
        "runs/contract/models/verifier/000001",
        lambda request: replace(request, messages=refused),
    )
    engine.close()


def no_models(version: str) -> Path:
    raise AssertionError("this engine needs no model's folder")


SUBJECTS = {"openai": openai, "simulated": simulated, "local": local}


class TestEngineContract(EngineContract):
    @pytest.fixture(params=[*SUBJECTS, "triton"])
    def subject(self, request: pytest.FixtureRequest) -> Iterator[EngineSubject]:
        opened = (
            on_triton(request.getfixturevalue("triton"))
            if request.param == "triton"
            else SUBJECTS[request.param]()
        )
        with opened as one:
            yield one
