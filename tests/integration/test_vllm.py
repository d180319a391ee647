"""The OpenAI-compatible engine against vLLM with SmolLM2-135M-Instruct, on the CPU or a GPU.

vLLM pins other packages than proofloop, so it lives in an environment of its own:
PROOFLOOP_TEST_VLLM names its command, such as /opt/vllm/bin/vllm.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from proofloop.engine.base import ChatMessage, GenerationRequest
from proofloop.engine.openai.engine import OpenAIEngine
from proofloop.engine.openai.settings import OpenAISettings
from proofloop.errors import CallRefused, EngineError
from proofloop.schema.records import Sampling, Tokens
from tests.integration.processes import answers, end, free_ports
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(
    "PROOFLOOP_TEST_VLLM" not in os.environ,
    reason="no vLLM: set PROOFLOOP_TEST_VLLM to its command",
)

START_S = 300.0
CONTEXT = 2048
SCORE = {
    "type": "object",
    "properties": {"score": {"enum": ["0", "0.5", "1"]}},
    "required": ["score"],
    "additionalProperties": False,
}

Connect = Callable[..., OpenAIEngine]


@pytest.fixture(scope="module")
def server(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a vLLM with the model `smollm2`."""
    [port] = free_ports(1)
    log = tmp_path_factory.mktemp("vllm") / "log"
    options = [str(smollm2), "--served-model-name", "smollm2", "--host", "127.0.0.1"]
    options += ["--port", str(port), "--dtype", "float32", "--enforce-eager"]
    options += ["--max-model-len", str(CONTEXT), "--max-num-seqs", "8"]
    options += ["--enable-lora", "--max-lora-rank", "16", "--max-loras", "2"]
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    quiet["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "True"
    with log.open("w") as out:
        process = subprocess.Popen(
            [os.environ["PROOFLOOP_TEST_VLLM"], "serve", *options],
            env=os.environ | quiet,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        is_up = wait_until(lambda: process.poll() is not None or answers(f"{url}/health"), START_S)
        assert is_up and process.poll() is None, log.read_text()[-3000:]
        yield url
    finally:
        end(process)


@pytest.fixture
def connect(server: str) -> Iterator[Connect]:
    engines: list[OpenAIEngine] = []

    def open_one(folders: Mapping[str, Path] = {}, **settings: Any) -> OpenAIEngine:
        usual: dict[str, Any] = {"base_url": f"{server}/v1", "model": "smollm2", "max_attempts": 1}
        engines.append(OpenAIEngine(OpenAISettings(**(usual | settings)), folders.__getitem__))
        return engines[-1]

    yield open_one
    for engine in engines:
        engine.close()


def ask(
    text: str = "Name three primes.",
    *,
    model: str = "v-1",
    seed: int = 1,
    max_tokens: int = 24,
    schema: Mapping[str, Any] | None = None,
) -> GenerationRequest:
    sampling = Sampling(max_tokens=max_tokens, temperature=1.0)
    messages = (ChatMessage("user", text),)
    return GenerationRequest(f"generator:{seed}", model, messages, sampling, seed, schema=schema)


def running_calls(server: str) -> int:
    """The server's own count of requests that run or wait."""
    text = httpx.get(f"{server}/metrics").text
    counts = re.findall(r"^vllm:num_requests_(?:running|waiting)\{.*\} (\S+)$", text, re.MULTILINE)
    assert len(counts) >= 2, text
    return int(sum(map(float, counts)))


def test_tokens_have_the_log_probabilities_of_the_model(connect: Connect, smollm2: Path) -> None:
    transformers = pytest.importorskip("transformers")
    generation = connect(want_logprobs=True).submit(ask()).result(60)
    tokens = generation.tokens
    assert tokens is not None and len(tokens.completion_ids) == generation.completion_tokens
    tokenizer = transformers.AutoTokenizer.from_pretrained(smollm2)
    assert tokenizer.decode(tokens.completion_ids, skip_special_tokens=True) == generation.text
    assert tokens.logprobs == pytest.approx(logprobs(tokens, smollm2), abs=0.01)


def logprobs(tokens: Tokens, base: Path, adapter: Path | None = None) -> list[float]:
    """The log-probabilities of an answer's tokens by transformers."""
    torch, transformers = map(pytest.importorskip, ("torch", "transformers"))
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter:
        pytest.importorskip("proofloop_serving.adapters").attach(model, adapter, "only")
    ids = torch.tensor([[*tokens.prompt_ids, *tokens.completion_ids]])
    with torch.inference_mode():
        found = model(ids).logits[0, len(tokens.prompt_ids) - 1 : -1].log_softmax(-1)
    return found.gather(1, torch.tensor(tokens.completion_ids)[:, None])[:, 0].tolist()


@pytest.mark.parametrize("stream", ["auto", "never"])
def test_a_seed_gives_the_same_answer_again(connect: Connect, stream: str) -> None:
    engine = connect(stream=stream)
    texts = [engine.submit(ask(seed=seed)).result(60).text for seed in (1, 2**63 - 1, 1)]
    assert texts[0] == texts[2] != texts[1]


def test_a_canceled_call_frees_its_place(connect: Connect, server: str) -> None:
    engine = connect()
    calls = [engine.submit(ask(seed=seed, max_tokens=1500)) for seed in range(12)]
    assert wait_until(lambda: running_calls(server) == 12, 60), running_calls(server)
    for call in calls:
        call.cancel()
    assert wait_until(lambda: running_calls(server) == 0, 10), running_calls(server)
    assert {call.result(5).finish_reason for call in calls} == {"cancelled"}


@pytest.mark.parametrize(
    "request_", [ask("x " * CONTEXT), ask(max_tokens=CONTEXT + 1)], ids=["prompt", "max_tokens"]
)
def test_a_call_beyond_the_context_is_refused_with_the_way_out(
    connect: Connect, request_: GenerationRequest
) -> None:
    with pytest.raises(CallRefused, match=str(CONTEXT)) as caught:
        connect().submit(request_).result(60)
    assert "longer context" in str(caught.value.hint)


def test_a_wrong_name_is_answered_with_the_right_ones(connect: Connect) -> None:
    with pytest.raises(EngineError, match="the server has: smollm2") as caught:
        connect(model="another").submit(ask()).result(60)
    assert not caught.value.retryable


def test_the_server_keeps_to_a_schema(connect: Connect) -> None:
    request = ask("How good is this proof?", max_tokens=60, schema=SCORE)
    answer = json.loads(connect().submit(request).result(60).text)
    assert answer["score"] in ("0", "0.5", "1")


VERSIONS = [f"runs/vllm/models/verifier/{step:06d}" for step in (1, 2, 3)]


@pytest.fixture(scope="module")
def adapters(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two versions that fit the server, and one of a rank that is too large."""
    pytest.importorskip("proofloop_trainer")
    from tests.adapters import save_adapter

    folder, ranks = tmp_path_factory.mktemp("adapters"), (4, 16, 32)
    return {
        version: save_adapter(folder / str(rank), smollm2, rank, rank)
        for version, rank in zip(VERSIONS, ranks, strict=True)
    }


def test_each_adapter_answers_with_its_own_weights_also_after_a_restart(
    connect: Connect, server: str, smollm2: Path, adapters: dict[str, Path]
) -> None:
    """The base is asked alone: on a CPU this vLLM answers for it with an adapter that is in the
    same batch.
    """
    engine = connect(adapters, load_adapters=True, want_logprobs=True, max_attempts=3)
    first, second, _ = VERSIONS
    for _ in range(2):
        calls = [
            engine.submit(ask(model=version, seed=seed))
            for version in (first, second)
            for seed in range(3)
        ]
        answers = [call.result(120) for call in calls]
        answers.append(engine.submit(ask(model="start")).result(60))
        for answer in answers:
            adapter = adapters.get(answer.model_version)
            assert answer.tokens is not None
            expected = logprobs(answer.tokens, smollm2, adapter)
            assert answer.tokens.logprobs == pytest.approx(expected, abs=0.02)
        names = served(server)
        assert len(names) == 3
        for name in names - {"smollm2"}:  # as after a restart
            httpx.post(f"{server}/v1/unload_lora_adapter", json={"lora_name": name})


def served(server: str) -> set[str]:
    return {row["id"] for row in httpx.get(f"{server}/v1/models").json()["data"]}


def test_the_server_keeps_the_last_adapters(
    connect: Connect, server: str, adapters: dict[str, Path]
) -> None:
    engine = connect(adapters, load_adapters=True, adapters_kept=1)
    for version in VERSIONS[:2]:
        engine.prepare(version)
    assert [name for name in served(server) if name.startswith("runs/")] == [f"{VERSIONS[1]}-16"]


@pytest.mark.parametrize(
    ("version", "folder", "hint"),
    [(VERSIONS[2], None, "--max-lora-rank"), (VERSIONS[0], Path("/nowhere"), "same path")],
)
def test_an_adapter_that_vllm_cannot_load_is_refused_with_the_way_out(
    connect: Connect,
    adapters: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    folder: Path | None,
    hint: str,
) -> None:
    if folder:
        monkeypatch.setattr("proofloop.engine.openai.adapters.is_adapter", lambda _: True)
    folders = adapters | ({version: folder} if folder else {})
    engine = connect(folders, load_adapters=True, max_attempts=3)
    with pytest.raises(EngineError) as caught:
        engine.submit(ask(model=version)).result(60)
    assert not caught.value.retryable and hint in caught.value.hint
