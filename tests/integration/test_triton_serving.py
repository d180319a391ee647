"""The Triton model on a real server: what it answers, whom a bad request harms, what a cancel
frees.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("proofloop_trainer", reason="proofloop-trainer is not installed")

import numpy as np
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from proofloop.engine.base import ChatMessage, Generation, GenerationRequest
from proofloop.engine.triton.contract import (
    LLMAPI_INPUTS,
    LLMAPI_OUTPUTS,
    OUR_INPUTS,
    OUR_OUTPUTS,
    triton_name,
)
from proofloop.method.domains.nano import NanoDomain
from proofloop.method.prompts import load_pack
from proofloop.schema.records import Sampling
from proofloop.store import LocalStore
from proofloop.store.model_folders import version_folder
from proofloop_serving.engine import LocalEngine
from tests.adapters import save_adapter
from tests.integration.triton_asking import FIRST, Server, ask
from tests.integration.triton_server import own_triton
from tests.nano_base import nano_base_folder
from tests.waiting import wait_until

SECOND, BROKEN, ENDLESS, ADAPTER = (
    f"runs/serving/models/verifier/{number:06d}" for number in (2, 3, 4, 9)
)
QUESTION = NanoDomain().pose(0, split="test", seed=0).question
PROMPT = load_pack("nano").prove(QUESTION).text
MESSAGES = json.dumps([{"role": "user", "content": PROMPT}])
WORDS = {"sampling_param_max_tokens": 96, "sampling_param_temperature": 1.0}
LONG = {"text_input": "a=", "sampling_param_max_tokens": 50_000, "return_finish_reason": True}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("serving")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROOFLOOP_STORE", str(folder / "store"))
        with own_triton() as triton:
            own = Server(triton, LocalStore(folder / "store"))
            own.publish(FIRST, nano_base_folder(), folder / "first")
            publish_endless(own, ENDLESS, folder)
            own.load(FIRST)
            own.load(ENDLESS)
            yield own


def publish_endless(server: Server, version: str, folder: Path) -> None:
    """A version that has room for 100,000 tokens and never ends by itself."""
    shutil.copytree(nano_base_folder(), folder / "model")
    for name, changes in {
        "config.json": {"max_position_embeddings": 100_000, "eos_token_id": None},
        "generation_config.json": {"eos_token_id": None},
        "tokenizer_config.json": {"eos_token": "<user>"},
    }.items():
        path = folder / "model" / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    server.publish(version, folder / "model", folder / "published")


def stop(server: Server, request_id: str) -> None:
    """Cancel a call of the endless version by its id."""
    asked = ask(server, request_id, ENDLESS, stop=True)
    assert asked.ended.wait(60)
    asked.client.stop_stream()
    asked.client.close()


def in_process(seed: int, folder: Path | None = None, **sampling: float) -> Generation:
    engine = LocalEngine(lambda _: folder or nano_base_folder())
    wanted = Sampling(**{"max_tokens": 96, **sampling})
    answer = engine.submit(
        GenerationRequest("one", "m", (ChatMessage("user", PROMPT),), wanted, seed)
    ).result(60)
    engine.close()
    return answer


def test_the_model_declares_the_contract(server: Server) -> None:
    with InferenceServerClient(server.triton.endpoint) as client:
        config = client.get_model_config(triton_name(FIRST), as_json=True)["config"]
    assert {
        each["name"]: each["data_type"] for each in config["input"]
    } == LLMAPI_INPUTS | OUR_INPUTS
    assert {
        each["name"]: each["data_type"] for each in config["output"]
    } == LLMAPI_OUTPUTS | OUR_OUTPUTS
    assert all(each["optional"] for each in config["input"])
    assert config["model_transaction_policy"] == {"decoupled": True}


def test_an_adapter_is_served_on_its_base_model(server: Server, tmp_path: Path) -> None:
    folder = save_adapter(tmp_path / "adapter", nano_base_folder(), seed=1)
    server.publish(ADAPTER, folder, tmp_path / "published")
    server.load(ADAPTER)
    asked = ask(
        server,
        "",
        ADAPTER,
        messages=MESSAGES,
        sampling_param_seed=7,
        sampling_param_exclude_input_from_output=True,
        return_tokens=True,
        return_cumulative_logprob=True,
        **WORDS,
    )
    last, expected = asked.last(), in_process(7, folder)
    assert tuple(last["token_ids"]) == expected.tokens.completion_ids
    assert last["logprobs"] == pytest.approx(np.array(expected.tokens.logprobs), abs=1e-4)
    assert expected.tokens.completion_ids != in_process(7).tokens.completion_ids


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.7, "top_p": 0.9}])
def test_an_answer_is_the_one_of_the_in_process_engine(
    server: Server, streaming: bool, sampling: dict[str, float]
) -> None:
    wanted = {f"sampling_param_{name}": value for name, value in sampling.items()}
    asked = ask(
        server,
        messages=MESSAGES,
        sampling_param_seed=7,
        streaming=streaming,
        sampling_param_exclude_input_from_output=True,
        return_tokens=True,
        return_finish_reason=True,
        return_cumulative_logprob=True,
        **(WORDS | wanted),
    )
    last, expected = asked.last(), in_process(7, **sampling)
    assert last["text_output"][0].decode().strip() == expected.text
    assert tuple(last["prompt_token_ids"]) == expected.tokens.prompt_ids
    assert tuple(last["token_ids"]) == expected.tokens.completion_ids
    assert last["logprobs"] == pytest.approx(np.array(expected.tokens.logprobs), abs=1e-4)
    assert last["cumulative_logprob"][0] == pytest.approx(sum(expected.tokens.logprobs), abs=1e-3)
    assert last["finish_reason"][0].decode() == expected.finish_reason
    assert last["num_input_tokens"][0] == expected.prompt_tokens
    assert last["num_output_tokens"][0] == expected.completion_tokens
    assert last["model_version"][0].decode() == FIRST and last["engine_seconds"][0] > 0
    assert streaming or len(asked.chunks) == 1


def test_each_chunk_of_a_stream_carries_the_text_so_far(server: Server) -> None:
    words = WORDS | {"sampling_param_max_tokens": 500}  # an answer of a few tokens may come whole
    asked = ask(
        server, "", ENDLESS, messages=MESSAGES, streaming=True, sampling_param_seed=3,
        return_finish_reason=True, return_tokens=True,
        sampling_param_exclude_input_from_output=True, **words,
    )  # fmt: skip
    whole = asked.text()
    texts = [chunk["text_output"][0].decode() for chunk in asked.chunks]
    counts = [int(chunk["num_output_tokens"][0]) for chunk in asked.chunks]
    assert len(texts) > 1 and all(whole.startswith(text) for text in texts)
    assert counts == sorted(counts)
    assert [chunk["finish_reason"][0] for chunk in asked.chunks] == [b""] * (len(texts) - 1) + [
        b"length"
    ]
    assert ["token_ids" in chunk for chunk in asked.chunks] == [False] * (len(texts) - 1) + [True]


def test_sixteen_streams_at_once_each_get_their_own_answer(server: Server) -> None:
    asked = [
        ask(
            server,
            f"many-{seed}",
            messages=MESSAGES,
            streaming=True,
            sampling_param_seed=seed,
            return_tokens=True,
            **WORDS,
        )
        for seed in range(16)
    ]
    engine = LocalEngine(lambda _: nano_base_folder())
    message = (ChatMessage("user", PROMPT),)
    calls = [
        engine.submit(GenerationRequest("", "m", message, Sampling(max_tokens=96), seed))
        for seed in range(16)
    ]
    expected = [call.result(60).tokens.completion_ids for call in calls]
    engine.close()
    assert [tuple(each.last()["token_ids"]) for each in asked] == expected


def test_without_sampling_parameters_it_is_greedy_and_brief_as_in_tensorrt_llm(
    server: Server,
) -> None:
    answer = ask(server, messages=MESSAGES, return_tokens=True).last()
    assert tuple(answer["token_ids"]) == in_process(1, temperature=0).tokens.completion_ids
    babble = ask(server, "", ENDLESS, text_input="a=", return_finish_reason=True).last()
    assert (babble["num_output_tokens"][0], babble["finish_reason"][0]) == (32, b"length")


@pytest.mark.parametrize("tensor", ["text_input", "messages"])
def test_the_prompt_is_echoed_unless_excluded(server: Server, tensor: str) -> None:
    value = PROMPT if tensor == "text_input" else MESSAGES
    plain = ask(server, **{tensor: value}, sampling_param_exclude_input_from_output=True).text()
    assert ask(server, **{tensor: value}).text() == PROMPT + plain


def test_top_k_one_is_greedy(server: Server) -> None:
    greedy = ask(server, messages=MESSAGES).text()
    assert (
        ask(server, messages=MESSAGES, sampling_param_top_k=1, sampling_param_seed=5).text()
        == greedy
    )


def test_a_stop_string_ends_the_answer_before_it(server: Server) -> None:
    whole = in_process(7).text
    ending = whole[40:46]
    asked = ask(
        server, messages=MESSAGES, sampling_param_seed=7,
        sampling_param_stop=["never said", ending], return_finish_reason=True,
        return_stop_reason=True, sampling_param_exclude_input_from_output=True, **WORDS,
    )  # fmt: skip
    assert asked.text().strip() == whole[: whole.index(ending)].strip()
    assert asked.chunks[-1]["finish_reason"][0] == b"stop"
    assert asked.chunks[-1]["stop_reason"][0].decode() == ending


def test_the_second_critique_of_a_proof_finds_its_prompt_read(server: Server) -> None:
    prompt = json.dumps([{"role": "user", "content": PROMPT + " again"}])
    before = server.figure("cached_tokens_total")
    first, second = ask(server, messages=prompt).last(), ask(server, messages=prompt).last()
    assert first["num_cached_tokens"][0] == 0
    assert second["num_cached_tokens"][0] == second["num_input_tokens"][0] > 0
    assert wait_until(
        lambda: server.figure("cached_tokens_total") == before + second["num_input_tokens"][0], 60
    )


@pytest.mark.parametrize("way", ["gone client", "stop request"])
def test_a_cancelled_call_frees_its_slot(server: Server, way: str) -> None:
    asked = ask(server, way, ENDLESS, streaming=True, **LONG)
    assert asked.began.wait(60)
    assert wait_until(lambda: server.figure("running", ENDLESS) == 1, 60)
    if way == "gone client":
        asked.client.stop_stream(cancel_requests=True)
    else:
        stop(server, way)
        assert asked.last()["finish_reason"][0] == b"cancelled"
    assert wait_until(lambda: server.figure("running", ENDLESS) == 0, 60)


BAD = {
    "text_input or messages": {},
    "text_input is empty": {"text_input": ""},
    "Invalid JSON": {"messages": "no json"},
    "0.role": {"messages": '[{"role": "judge", "content": "1"}]'},
    "sampling_param_max_tokens = 0": {"messages": MESSAGES, "sampling_param_max_tokens": 0},
    "sampling_param_temperature = -1.0": {"messages": MESSAGES, "sampling_param_temperature": -1.0},
    "sampling_param_temperature = nan": {
        "messages": MESSAGES,
        "sampling_param_temperature": math.nan,
    },
    "sampling_param_top_p = 1.5": {"messages": MESSAGES, "sampling_param_top_p": 1.5},
    "sampling_param_top_k = -3": {"messages": MESSAGES, "sampling_param_top_k": -3},
    "none of them empty": {"messages": MESSAGES, "sampling_param_stop": [""]},
    r"shape \[2\]": {"messages": MESSAGES, "sampling_param_seed": [1, 2]},
    "leaves no room for an answer: the model.s context has 512": {"text_input": "\n" * 600},
    "is not UTF-8": {"text_input": b"\xff\xfe"},
}


def test_bad_requests_fail_alone_and_say_why(server: Server) -> None:
    good = [
        ask(server, messages=MESSAGES, sampling_param_seed=7, return_tokens=True, **WORDS)
        for _ in range(4)
    ]
    bad = {said: ask(server, **values) for said, values in BAD.items()}
    for said, asked in bad.items():
        with pytest.raises(InferenceServerException, match=said):
            asked.last()
    expected = in_process(7).tokens.completion_ids
    assert {tuple(each.last()["token_ids"]) for each in good} == {expected}


def test_an_id_that_is_running_is_refused(server: Server) -> None:
    first = ask(server, "twice", ENDLESS, streaming=True, **LONG)
    assert first.began.wait(60)
    with pytest.raises(InferenceServerException, match="'twice' is already running"):
        ask(server, "twice", ENDLESS, **LONG).last()
    stop(server, "twice")
    assert first.last()["finish_reason"][0] == b"cancelled"


def test_two_versions_serve_side_by_side_and_a_broken_one_is_refused(
    server: Server, tmp_path: Path
) -> None:
    server.publish(SECOND, nano_base_folder(), tmp_path / "second")
    server.publish(BROKEN, nano_base_folder(), tmp_path / "third")
    weights = version_folder(server.store, tmp_path, BROKEN) / "model.safetensors"
    weights.chmod(0o644)
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    server.load(SECOND)
    with pytest.raises(
        InferenceServerException,
        match=r"000003/\w+/model.safetensors has digest \w+, its manifest says",
    ):
        server.load(BROKEN)
    with pytest.raises(InferenceServerException, match=r"no settings file .none\.yaml."):
        server.load(SECOND, "none.yaml")
    answers = {
        version: ask(server, "", version, messages=MESSAGES).last() for version in (FIRST, SECOND)
    }
    assert {
        version: answer["model_version"][0].decode() for version, answer in answers.items()
    } == {
        FIRST: FIRST,
        SECOND: SECOND,
    }
    tokens = answers[SECOND]["num_output_tokens"][0]
    assert wait_until(lambda: server.figure("completion_tokens_total", SECOND) == tokens, 60)


def test_unloading_lets_running_calls_end(server: Server, tmp_path: Path) -> None:
    version = FIRST.replace("000001", "000005")
    publish_endless(server, version, tmp_path)
    server.load(version)
    words = {"sampling_param_max_tokens": 500, "streaming": True, "return_finish_reason": True}
    asked = [ask(server, "", version, text_input="a=", **words) for _ in range(16)]
    # A request that is still on its way finds no model.
    assert all(each.began.wait(60) for each in asked)
    with InferenceServerClient(server.triton.endpoint) as client:
        client.unload_model(triton_name(version))
        assert not client.is_model_ready(triton_name(version))
    assert not all(each.ended.is_set() for each in asked)
    answers = [each.last() for each in asked]
    assert {(answer["num_output_tokens"][0], answer["finish_reason"][0]) for answer in answers} == {
        (500, b"length")
    }
