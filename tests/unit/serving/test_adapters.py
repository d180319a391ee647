"""Adapters in the in-process engine: versions that share one base model."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from proofloop.engine.base import ChatMessage, Generation, GenerationRequest
from proofloop.engine.local import LocalSettings
from proofloop.errors import ConfigError, EngineError
from proofloop.method.domains.nano import NanoDomain
from proofloop.method.prompts import load_pack
from proofloop.schema.records import Sampling
from proofloop_serving import opening
from proofloop_serving.adapters import attach
from proofloop_serving.engine import LocalEngine
from proofloop_serving.loading import load_model
from proofloop_serving.settings import TensorRTSettings
from proofloop_trainer.nano import BASE_FOLDER
from tests.adapters import save_adapter

torch.set_num_threads(1)
PROMPTS = [
    load_pack("nano").prove(NanoDomain().pose(index, split="test", seed=0).question).text
    for index in range(8)
]


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of the base and of two of its adapters."""
    folder = tmp_path_factory.mktemp("adapters")
    a, b = (save_adapter(folder / name, BASE_FOLDER, seed) for seed, name in enumerate("ab"))
    return {"base": BASE_FOLDER, "a": a, "b": b}


def opened(versions: dict[str, Path], **settings: int) -> LocalEngine:
    return LocalEngine(versions.__getitem__, LocalSettings(**settings))


@pytest.fixture
def engine(versions: dict[str, Path]) -> Iterator[LocalEngine]:
    found = opened(versions)
    yield found
    found.close()


def request(number: int, model: str) -> GenerationRequest:
    message = ChatMessage("user", PROMPTS[number % len(PROMPTS)])
    sampling = Sampling(max_tokens=40)
    return GenerationRequest(f"{model}-{number}", model, (message,), sampling, seed=number)


def ask(engine: LocalEngine, requests: list[GenerationRequest]) -> list[Generation]:
    calls = [engine.submit(each) for each in requests]
    return [call.result(60) for call in calls]


def test_versions_of_one_base_answer_at_once_each_with_its_own_weights(
    engine: LocalEngine, versions: dict[str, Path]
) -> None:
    requests = [request(number, name) for number in range(8) for name in versions]
    answers = ask(engine, requests)
    assert len({id(served.loaded.model) for served in engine._models.values()}) == 1
    for name, folder in versions.items():
        model = load_model(BASE_FOLDER).model
        if folder != BASE_FOLDER:
            attach(model, folder, "only")
        for answer in (each for each in answers if each.model_version == name):
            tokens = answer.tokens
            assert tokens is not None
            with torch.inference_mode():
                (logits_TV,) = model(
                    torch.tensor([tokens.prompt_ids + tokens.completion_ids])
                ).logits
            logprobs_TV = logits_TV[len(tokens.prompt_ids) - 1 : -1].log_softmax(-1)
            expected = logprobs_TV.gather(1, torch.tensor(tokens.completion_ids)[:, None])[:, 0]
            assert torch.tensor(tokens.logprobs) == pytest.approx(expected, abs=1e-3)
    texts = [{each.text for each in answers if each.model_version == name} for name in versions]
    assert texts[0] != texts[1] != texts[2] != texts[0]


def test_an_adapter_leaves_and_its_base_stays_as_long_as_it_serves(
    versions: dict[str, Path],
) -> None:
    engine = opened(versions, models_kept=1)
    for name in ("a", "b", "base", "a"):
        ask(engine, [request(0, name)])
        assert list(engine._models) == [name]
        model = engine._models[name].loaded.model
        assert len(getattr(model, "peft_config", {})) == (name != "base")
        gc.collect()
        assert [each.model is model for each in engine._whole.values()] == [True]
    engine.close()


def test_an_adapter_in_32_bits_serves_a_base_in_16(tmp_path: Path) -> None:
    base = tmp_path / "base"
    load_model(BASE_FOLDER).model.bfloat16().save_pretrained(base)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (BASE_FOLDER / name).exists():
            shutil.copy(BASE_FOLDER / name, base)
    folder = save_adapter(tmp_path / "adapter", base, seed=1)
    engine = opened({"a": folder})
    (answer,) = ask(engine, [request(0, "a")])
    model = engine._models["a"].loaded.model
    kinds = {"lora" in name: weight.dtype for name, weight in model.named_parameters()}
    assert kinds == {False: torch.bfloat16, True: torch.float32}
    assert answer.completion_tokens > 0
    engine.close()


def drop_a_weight(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    weights = load_file(file)
    weights.pop(next(iter(weights)))
    save_file(weights, file)


def halve_the_weights(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    save_file({name: each[:1].contiguous() for name, each in load_file(file).items()}, file)


def rewrite(**fields: object):
    def change(folder: Path) -> None:
        file = folder / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))

    return change


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (drop_a_weight, "differ in 1 weights"),
        (halve_the_weights, "size mismatch"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"x"), "adapter"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "cannot be read"),
        (rewrite(base_model_name_or_path=None), "does not name the adapter's base model"),
        (rewrite(base_model_name_or_path="/nowhere"), "/nowhere is not a model folder"),
        (rewrite(peft_type="IA3"), "adapter"),
        (rewrite(modules_to_save=["lm_head"]), "only LoRA adapters"),
        (rewrite(target_modules=["lm_head"]), "output layer"),
        (rewrite(target_modules=["query"]), "query"),
    ],
)
def test_an_adapter_that_cannot_serve_is_named_and_the_others_go_on(
    versions: dict[str, Path], tmp_path: Path, damage, problem: str
) -> None:
    bad = Path(shutil.copytree(versions["a"], tmp_path / "bad"))
    damage(bad)
    engine = opened(versions | {"bad": bad})
    ask(engine, [request(0, "a")])
    with pytest.raises(EngineError, match=problem) as caught:
        ask(engine, [request(0, "bad")])
    assert str(bad) in str(caught.value) or "nowhere" in problem
    assert not caught.value.retryable
    first, again = ask(engine, [request(1, "a"), request(1, "a")])
    assert first.text == again.text
    fresh = opened(versions)
    assert ask(fresh, [request(1, "a")])[0].text == first.text
    fresh.close()
    engine.close()


def test_tensorrt_refuses_an_adapter(
    versions: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = TensorRTSettings(engine="tensorrt_llm")
    monkeypatch.setattr(opening, "load_settings", lambda name: wanted)
    with pytest.raises(ConfigError, match="is an adapter"):
        opening.open_serving(str(versions["a"]), "any.yaml")
