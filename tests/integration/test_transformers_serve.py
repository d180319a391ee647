"""The OpenAI-compatible engine against `transformers serve` with the nano model: a real server,
offline, on the CPU.

Needs the packages of `transformers[serving]`: fastapi, uvicorn, openai.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proofloop.engine.base import ChatMessage, GenerationRequest
from proofloop.engine.openai.engine import OpenAIEngine
from proofloop.engine.openai.settings import OpenAISettings
from proofloop.errors import EngineError
from proofloop.method.prompts.json_format import schema_of
from proofloop.schema.records import Sampling
from tests.integration.processes import transformers_serve
from tests.nano_base import nano_base_folder

LONG = 450  # tokens; the nano model takes 512 with the prompt
WITHOUT_END = {"logit_bias": {"2": -100.0}}  # 2 is the nano model's <eos>
# A model whose generation_config.json does not say do_sample is served greedily, whatever
# temperature is asked for.
SAMPLING_ON = {"do_sample": True, "eos_token_id": 2, "pad_token_id": 0}

Connect = Callable[..., OpenAIEngine]


@pytest.fixture(scope="module")
def folder() -> Path:
    return nano_base_folder()


@pytest.fixture(scope="module")
def base_url(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    for package in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(
            package,
            reason=f"transformers serve needs {package}: pip install 'transformers[serving]'",
        )
    with transformers_serve(folder, tmp_path_factory.mktemp("serve") / "log") as url:
        yield url


@pytest.fixture
def connect(base_url: str, folder: Path) -> Iterator[Connect]:
    engines: list[OpenAIEngine] = []

    def open_one(**settings: Any) -> OpenAIEngine:
        usual: dict[str, Any] = {
            "base_url": base_url,
            "model": str(folder),
            "idle_timeout_s": 30,
            "max_attempts": 1,
        }
        engines.append(OpenAIEngine(OpenAISettings(**(usual | settings))))
        return engines[-1]

    yield open_one
    for engine in engines:
        engine.close()


def ask(seed: int = 1, max_tokens: int = 64, temperature: float = 1.0) -> GenerationRequest:
    messages = (ChatMessage("user", "start 3 +4 *2 mod 7"),)
    sampling = Sampling(max_tokens=max_tokens, temperature=temperature)
    return GenerationRequest(f"generator:{seed}", "nano-base", messages, sampling, seed)


def test_it_answers_and_reports_usage(connect: Connect) -> None:
    generation = connect().submit(ask()).result(30)
    assert generation.text
    assert generation.model_version == "nano-base"
    assert generation.prompt_tokens > 0 and 0 < generation.completion_tokens <= 64
    assert generation.tokens is None


def test_a_small_limit_ends_an_answer_by_its_length(connect: Connect) -> None:
    generation = connect().submit(ask(max_tokens=2)).result(30)
    assert (generation.finish_reason, generation.completion_tokens) == ("length", 2)


def test_seeds_are_obeyed_where_the_server_samples(connect: Connect) -> None:
    engine = connect(extra_body={"generation_config": json.dumps(SAMPLING_ON)})
    texts = [engine.submit(ask(seed, temperature=5.0)).result(30).text for seed in (1, 2, 1)]
    assert texts[0] == texts[2] != texts[1]


def test_cancelling_frees_the_server(connect: Connect) -> None:
    engine = connect(extra_body=WITHOUT_END)
    whole = engine.submit(ask(max_tokens=LONG)).result(30)
    calls = [engine.submit(ask(max_tokens=LONG)) for _ in range(8)]
    # The server takes one after the other: all would be 8 times as long as one.
    time.sleep(whole.engine_seconds / 4)
    for call in calls:
        call.cancel()
    assert [call.result(5).finish_reason for call in calls] == ["cancelled"] * 8
    assert engine.submit(ask(max_tokens=2)).result(30).engine_seconds < 4 * whole.engine_seconds


def test_eight_calls_at_once(connect: Connect) -> None:
    engine = connect()
    calls = [engine.submit(ask(seed, max_tokens=16)) for seed in range(8)]
    assert all(call.result(30).text for call in calls)


def test_log_probabilities_are_not_offered_and_not_made_up(connect: Connect) -> None:
    # Its 422 names return_token_ids.
    generation = connect(want_logprobs=True).submit(ask()).result(30)
    assert generation.text and generation.tokens is None


def test_a_schema_that_the_server_ignores_does_no_harm(connect: Connect) -> None:
    with_schema = replace(ask(), schema=schema_of("proof_verification"))
    assert connect().submit(with_schema).result(30).text


def test_another_model_is_refused_for_good(connect: Connect) -> None:
    with pytest.raises(EngineError, match="pinned to") as caught:
        connect(model="another").submit(ask()).result(30)
    assert not caught.value.retryable
