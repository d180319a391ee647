"""An OpenAI-compatible server that does what a test says, and the engine that asks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proofloop.engine.base import ChatMessage, GenerationRequest
from proofloop.engine.openai.engine import OpenAIEngine
from proofloop.engine.openai.settings import OpenAISettings
from proofloop.errors import EngineError
from proofloop.schema.records import Sampling
from proofloop.store import LocalStore
from proofloop.worker.engine_pool import Engines
from tests.scripted_openai import Script, ScriptedServer

Connect = Callable[..., OpenAIEngine]
Serve = Callable[..., ScriptedServer]


def ask(
    prompt: str = "Prove it.", *, seed: int = 1, max_tokens: int = 64, **sampling: float
) -> GenerationRequest:
    return GenerationRequest(
        f"generator:{prompt}",
        "prover-7",
        (ChatMessage("user", prompt),),
        Sampling(max_tokens=max_tokens, **sampling),
        seed,
    )


def fails_with(engine: OpenAIEngine, prompt: str = "Prove it.") -> EngineError:
    with pytest.raises(EngineError) as caught:
        engine.submit(ask(prompt)).result(60)
    return caught.value


@pytest.fixture
def engines(tmp_path: Path) -> Iterator[Engines]:
    opened = Engines(LocalStore(tmp_path), tmp_path / "cache")
    yield opened
    opened.close()


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[ScriptedServer] = []

    def start(*scripts: Script, models: list[str] | None = None) -> ScriptedServer:
        servers.append(ScriptedServer(*scripts, models=models).__enter__())
        return servers[-1]

    yield start
    for server in servers:
        server.__exit__()


@pytest.fixture
def connect(serve: Serve) -> Iterator[Connect]:
    """Opens an engine on a server, or on a new one that plays these scripts."""
    engines: list[OpenAIEngine] = []

    def open_one(*asked: ScriptedServer | Script, **settings: Any) -> OpenAIEngine:
        server = asked[0] if isinstance(asked[0], ScriptedServer) else serve(*asked)
        quick = {"first_wait_s": 0.01, "idle_timeout_s": 5.0, "max_attempts": 3}
        engines.append(
            OpenAIEngine(OpenAISettings(**({"base_url": server.base_url} | quick | settings)))
        )
        return engines[-1]

    yield open_one
    for engine in engines:
        engine.close()
