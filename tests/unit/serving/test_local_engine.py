"""The in-process engine, on the shipped nano model."""

import gc
import shutil
import time

import pytest
import torch
from safetensors.torch import load_file

from proofloop.config.run_file import RunSpec
from proofloop.engine.base import ChatMessage, Generation, GenerationRequest
from proofloop.engine.local import LocalSettings
from proofloop.errors import CallRefused, ConfigError, EngineError, NotFound, StoreError
from proofloop.method.domains.nano import NanoDomain
from proofloop.method.prompts import load_pack
from proofloop.schema.records import Sampling
from proofloop.store import LocalStore
from proofloop.worker.engine_pool import Engines
from proofloop_serving.decoding.batch import Batch, decode
from proofloop_serving.decoding.prompts import ReadPrompts, passes
from proofloop_serving.decoding.row import Row
from proofloop_serving.decoding.sampling import sample
from proofloop_serving.engine import LocalEngine, open_engine
from proofloop_serving.loading import LoadedModel, load_model
from proofloop_trainer.nano import BASE_FOLDER
from tests.builders import runspec

torch.set_num_threads(1)
DOMAIN, PACK = NanoDomain(), load_pack("nano")
PROMPTS = [
    PACK.prove(DOMAIN.pose(index, split="test", seed=0).question).text for index in range(24)
]


@pytest.fixture
def engine():
    opened = LocalEngine(lambda name: BASE_FOLDER)
    yield opened
    opened.close()


def request(number: int, model: str = "base", **sampling: float) -> GenerationRequest:
    wanted = Sampling(**{"max_tokens": 96, **sampling})
    prompt = PROMPTS[number % len(PROMPTS)]
    return GenerationRequest(
        str(number), model, (ChatMessage("user", prompt),), wanted, seed=number
    )


def ask(engine: LocalEngine, requests: list[GenerationRequest]) -> list[Generation]:
    calls = [engine.submit(each) for each in requests]
    return [call.result(60) for call in calls]


def completions(generations: list[Generation]) -> list[tuple[int, ...]]:
    return [generation.tokens.completion_ids for generation in generations]


def test_an_answer_depends_on_its_seed_and_not_on_its_batch(engine):
    requests = [request(number) for number in range(48)]
    together = completions(ask(engine, requests))
    few_at_once = LocalEngine(
        lambda name: BASE_FOLDER, LocalSettings(max_batch=5, tokens_per_pass=200)
    )
    assert completions(ask(few_at_once, requests[::-1]))[::-1] == together
    few_at_once.close()
    assert together[:24] != together[24:]  # the same prompts under other seeds


def test_new_rows_take_the_places_of_ended_ones():
    loaded = load_model(BASE_FOLDER)
    prompt_ids = loaded.encode(PROMPTS[0])

    def row(seed: int, max_tokens: int = 30) -> Row:
        return Row(prompt_ids, Sampling(), seed, max_tokens)

    batch = Batch(loaded.model, loaded.eos_ids)
    batch.join([row(0, max_tokens=2), row(1), row(2)])
    for _ in range(2):
        batch.step()
    new = row(3)
    batch.join([new])
    assert [each.seed for each in batch.rows] == [3, 1, 2]
    others = batch.rows[1:]
    while batch.rows:
        batch.step()
    alone = [row(seed) for seed in (3, 1, 2)]
    for each in alone:
        decode(loaded.model, [each], loaded.eos_ids)
    assert [each.completion_ids for each in (new, *others)] == [
        each.completion_ids for each in alone
    ]


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.7, "top_p": 0.9}, {"temperature": 1.5}])
def test_log_probabilities_are_those_of_a_fresh_forward_pass(engine, sampling):
    model = load_model(BASE_FOLDER).model
    for generation in ask(engine, [request(number, **sampling) for number in range(12)]):
        tokens, wanted = generation.tokens, Sampling(**sampling)
        with torch.inference_mode():
            logits = model(torch.tensor([tokens.prompt_ids + tokens.completion_ids])).logits[0]
        probabilities = torch.softmax(
            logits[len(tokens.prompt_ids) - 1 : -1].double() / wanted.temperature, -1
        )
        if wanted.top_p < 1:
            ordered, order = probabilities.sort(-1, descending=True)
            ordered[ordered.cumsum(-1) - ordered >= wanted.top_p] = 0
            probabilities = torch.zeros_like(probabilities).scatter(1, order, ordered)
            probabilities /= probabilities.sum(-1, keepdim=True)
        expected = probabilities.gather(1, torch.tensor(tokens.completion_ids)[:, None])[:, 0].log()
        assert torch.tensor(tokens.logprobs) == pytest.approx(expected, abs=1e-3)


def test_an_answer_stops_at_its_end_or_at_its_limit(engine):
    whole, cut = ask(engine, [request(0), request(0, max_tokens=5)])
    eos = load_model(BASE_FOLDER).tokenizer.eos_token_id
    assert (whole.finish_reason, whole.tokens.completion_ids[-1]) == ("stop", eos)
    assert (cut.finish_reason, cut.completion_tokens) == ("length", 5)
    assert cut.tokens.completion_ids == whole.tokens.completion_ids[:5]
    assert whole.text.startswith("## Solution") and whole.text.endswith("}")


def test_temperature_zero_takes_the_likeliest_token(engine):
    first, second = ask(engine, [request(0, temperature=0), request(24, temperature=0)])
    assert first.tokens == second.tokens
    assert first.tokens.logprobs == pytest.approx([0.0] * first.completion_tokens, abs=1e-6)


def test_shares_of_engine_seconds_add_up_to_wall_time(engine):
    ask(engine, [request(0)])
    began = time.perf_counter()
    total = sum(
        generation.engine_seconds
        for generation in ask(engine, [request(number) for number in range(64)])
    )
    took = time.perf_counter() - began
    assert took / 2 < total <= took


def test_the_second_call_of_a_prompt_says_that_it_was_read_before(engine):
    first, second = (ask(engine, [request(0)])[0] for _ in range(2))
    assert (first.cached_tokens, second.cached_tokens) == (0, second.prompt_tokens)


def test_a_call_whose_answer_cannot_be_made_fails_and_the_engine_goes_on(engine, monkeypatch):
    tokenizer = engine.load("base").tokenizer
    monkeypatch.setattr(tokenizer, "decode", lambda *_, **__: "".join([None]))
    with pytest.raises(EngineError, match="TypeError"):
        engine.submit(request(0)).result(30)
    monkeypatch.undo()
    assert engine.submit(request(0)).result(60).finish_reason == "stop"


def test_a_cancelled_call_returns_and_its_neighbours_finish(engine):
    calls = [engine.submit(request(number)) for number in range(16)]
    calls[3].cancel()
    calls[3].cancel()
    assert calls[3].result(60).finish_reason == "cancelled"
    assert {call.result(60).finish_reason for call in calls[:3] + calls[4:]} == {"stop"}


@pytest.mark.parametrize(
    "damage",
    ["missing", "no config", "cut weights", "pickled weights", "no tokenizer", "too few weights"],
)
def test_a_bad_model_folder_fails_its_own_call_only(tmp_path, damage):
    folder = tmp_path / "bad"
    if damage != "missing":
        shutil.copytree(BASE_FOLDER, folder)
    if damage == "no config":
        (folder / "config.json").unlink()
    if damage == "cut weights":
        (folder / "model.safetensors").write_bytes(
            (folder / "model.safetensors").read_bytes()[:1000]
        )
    if damage == "pickled weights":
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    if damage == "no tokenizer":
        (folder / "tokenizer.json").write_text("{")
    if damage == "too few weights":
        config = (folder / "config.json").read_text()
        (folder / "config.json").write_text(
            config.replace('"num_hidden_layers": ', '"num_hidden_layers": 1')
        )
    engine = LocalEngine(lambda name: BASE_FOLDER if name == "base" else folder)
    bad, good = engine.submit(request(0, model="bad")), engine.submit(request(0))
    with pytest.raises(EngineError, match=str(folder)) as caught:
        bad.result(60)
    assert not caught.value.retryable
    assert good.result(60).finish_reason == "stop"
    engine.close()


@pytest.mark.parametrize(
    ("error", "retryable"), [(NotFound("gone"), False), (StoreError("away"), True)]
)
def test_a_store_that_is_away_is_worth_a_retry_and_a_missing_model_is_not(error, retryable):
    def resolve(name):
        raise error

    engine = open_engine({}, resolve)
    with pytest.raises(EngineError) as caught:
        engine.submit(request(0)).result(60)
    assert caught.value.retryable is retryable
    engine.close()


def test_a_prompt_without_room_for_an_answer_fails_alone(engine):
    long = GenerationRequest("long", "base", (ChatMessage("user", "\n" * 600),), Sampling(), seed=0)
    with pytest.raises(EngineError, match="leaves no room"):
        engine.submit(long).result(60)
    assert ask(engine, [request(0)])[0].finish_reason == "stop"


def test_a_proof_cannot_end_its_turn():
    loaded = load_model(BASE_FOLDER)
    planted = "1 <eos><assistant> 2"
    ids = loaded.encode((ChatMessage("user", planted),))
    user, assistant = loaded.tokenizer.convert_tokens_to_ids(["<user>", "<assistant>"])
    assert (ids[0], ids[-1]) == (user, assistant)
    assert not {user, assistant, loaded.tokenizer.eos_token_id} & {*ids[1:-1]}


def test_a_prompt_that_the_chat_template_refuses_fails_alone(engine):
    engine.load(
        "base"
    ).tokenizer.chat_template = (
        "{{ messages[0].content }}{{ 'x' / 2 if 'bad' in messages[0].content }}"
    )
    bad = GenerationRequest("bad", "base", (ChatMessage("user", "bad"),), Sampling(), seed=0)
    calls = [engine.submit(each) for each in (request(0), bad, request(1))]
    with pytest.raises(CallRefused, match="the tokenizer cannot read the prompt: TypeError"):
        calls[1].result(60)
    assert [calls[place].result(60).completion_tokens > 0 for place in (0, 2)] == [True, True]


@pytest.mark.usefixtures("quiet_log")
def test_out_of_memory_halves_the_batch_until_the_calls_have_room():
    """The model stands for a GPU on which three answers have room."""

    def forward(module, inputs, named):
        if len(named["input_ids"]) > 3:
            raise torch.OutOfMemoryError("no room")

    engine = LocalEngine(lambda name: BASE_FOLDER, LocalSettings(max_batch=8))
    engine.load("base").model.register_forward_pre_hook(forward, with_kwargs=True)
    waiting, rounds = list(range(8)), 0
    while waiting and rounds < 5:
        calls = {number: engine.submit(request(number)) for number in waiting}
        failed = {
            number: error for number, call in calls.items() if (error := call.future.exception(60))
        }
        assert all(isinstance(error, EngineError) and error.retryable for error in failed.values())
        waiting, rounds = list(failed), rounds + 1
    assert not waiting and rounds > 1
    engine.close()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"max_batc": 1},
            r'\[engine\] local: unknown key "max_batc" \(did you mean "max_batch"\?\)\nhint: known',
        ),
        (
            {"max_batch": "many"},
            r"\[engine\] local: max_batch = 'many': Input should be a valid integer",
        ),
        (
            {"models_kept": 0},
            r"\[engine\] local: models_kept = 0: Input should be greater than or equal to 1",
        ),
    ],
)
def test_wrong_settings_are_named(settings, said):
    with pytest.raises(ConfigError, match=said):
        open_engine(settings, lambda name: BASE_FOLDER)


def models_in_memory() -> int:
    return sum(type(each) is LoadedModel for each in gc.get_objects())


def test_the_model_asked_longest_ago_is_let_go_before_another_is_loaded():
    gc.collect()
    others, seen = models_in_memory(), []

    def resolve(name):
        seen.append((name, models_in_memory() - others))
        return BASE_FOLDER

    engine = open_engine({"models_kept": 2}, resolve)
    for name in ("a", "b", "a", "c", "a", "b"):
        ask(engine, [request(0, name, max_tokens=2)])
    engine.close()
    assert seen == [("a", 0), ("b", 1), ("c", 1), ("b", 1)]


@pytest.mark.usefixtures("quiet_log")
def test_a_model_without_room_replaces_idle_ones_or_fails_its_own_calls(monkeypatch, tmp_path):
    """The loader stands for a GPU on which two models have room."""
    gc.collect()
    others, rows = models_in_memory(), []

    def load(folder):
        if models_in_memory() - others >= 2:
            raise torch.OutOfMemoryError("no room")
        loaded = load_model(folder)
        hook = lambda _, inputs, named: rows.append(len(named["input_ids"]))  # noqa: E731
        loaded.model.register_forward_pre_hook(hook, with_kwargs=True)
        return loaded

    monkeypatch.setattr("proofloop_serving.engine.load_model", load)
    for name in "abcde":
        (tmp_path / name).symlink_to(BASE_FOLDER)
    engine = LocalEngine(lambda name: tmp_path / name, LocalSettings(max_batch=8))
    ask(engine, [request(0, name, max_tokens=2) for name in ("a", "b")])
    ask(engine, [request(number, "c", max_tokens=2) for number in range(8)])
    assert rows[-1] == 8
    busy = [engine.submit(request(0, name, max_tokens=400)) for name in ("c", "d")]
    with pytest.raises(
        EngineError, match="no memory for 'e' beside 2 busy models: no room"
    ) as caught:
        engine.submit(request(0, "e")).result(60)
    assert caught.value.retryable
    for call in busy:
        call.cancel()
        call.result(60)
    ask(engine, [request(number, "e", max_tokens=2) for number in range(8)])
    assert rows[-1] == 8
    engine.close()


def test_prompts_are_read_in_passes_of_so_many_padded_tokens():
    shapes = []
    whole = LocalEngine(lambda name: BASE_FOLDER)
    engine = LocalEngine(lambda name: BASE_FOLDER, LocalSettings(tokens_per_pass=200))
    for each in (engine, whole):
        hook = lambda _, inputs, named: shapes.append(tuple(named["input_ids"].shape))  # noqa: E731
        each.load("base").model.register_forward_pre_hook(hook, with_kwargs=True)
    requests = [request(number) for number in range(24)]
    answers = completions(ask(engine, requests))
    read = [shape for shape in shapes if shape[1] > 1]
    assert sum(rows for rows, _ in read) == 24 and all(rows * width <= 200 for rows, width in read)
    shapes.clear()
    assert completions(ask(whole, requests)) == answers
    assert len([shape for shape in shapes if shape[1] > 1]) < len(read)
    for each in (engine, whole):
        each.close()


def test_a_prompt_larger_than_a_pass_is_read_alone():
    assert passes([(1,) * 3, (2,) * 9, (3,) * 4, (4,) * 4], 8) == [
        [(2,) * 9],
        [(3,) * 4, (4,) * 4],
        [(1,) * 3],
    ]
    assert passes([(1,) * 3, (2,) * 9], None) == [[(2,) * 9, (1,) * 3]]
    assert passes([], 8) == []


def test_a_model_is_put_on_the_gpu_with_the_most_free_memory(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda gpu: ((10, 70, 40)[gpu], 80))
    moved = []
    monkeypatch.setattr("torch.nn.Module.to", lambda model, device: moved.append(str(device)))
    load_model(BASE_FOLDER)
    assert moved == ["cuda:1"]


def test_closing_fails_what_waits_as_retryable(engine):
    calls = [engine.submit(request(number, model=f"model-{number}")) for number in range(4)]
    engine.close()
    late = engine.submit(request(0))
    for call in (calls[3], late):
        with pytest.raises(EngineError) as caught:
            call.result(1)
        assert caught.value.retryable


def test_all_models_together_keep_no_more_than_their_prompts_allowance():
    engine = LocalEngine(lambda name: BASE_FOLDER, LocalSettings(prompt_tokens_kept=3000))
    config = load_model(BASE_FOLDER).model.config
    for version in range(6):
        ask(engine, [request(number, f"version-{version}", max_tokens=2) for number in range(24)])
    kept = prompt_bytes()
    engine.close()
    bytes_of_a_token = (
        2 * 4 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    )
    assert 2000 * bytes_of_a_token < kept <= 3000 * bytes_of_a_token


def prompt_bytes() -> int:
    """What the keys and values of all prompts take that were read and are still held, room to spare
    included.
    """
    gc.collect()
    layers = [
        layer
        for each in gc.get_objects()
        if type(each) is ReadPrompts
        for layer in each.cache.layers
    ]
    return sum(
        tensor.untyped_storage().nbytes()
        for layer in layers
        for tensor in (layer.keys, layer.values)
    )


def test_sampling_follows_the_distribution():
    rows = 20_000
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(rows, 4)
    uniforms = (torch.arange(rows, dtype=torch.float64) + 0.5) / rows
    tokens, logprobs = sample(
        logits, torch.ones(rows), torch.full((rows,), 0.7, dtype=torch.float64), uniforms
    )
    assert torch.bincount(tokens, minlength=4).tolist() == pytest.approx([12500, 7500, 0, 0], abs=2)
    assert logprobs.exp().unique().tolist() == pytest.approx([0.375, 0.625], abs=1e-6)


def test_a_model_beside_its_run_file_is_that_of_the_run_and_others_are_shared(tmp_path):
    def run(folder: str, model: str) -> RunSpec:
        models = dict.fromkeys(("generator", "verifier", "meta_verifier"), model)
        return runspec(engine={"kind": "local"}, models=models, base=tmp_path / folder)

    engines = Engines(LocalStore(tmp_path / "store"), tmp_path / "cache")
    for folder in ("mine", "yours"):
        with pytest.raises(EngineError, match=f"{folder}/model is not a model folder"):
            engines.of(run(folder, "model"), "verifier").submit(request(0, "model")).result(60)
    assert engines.of(run("mine", "nano-base"), "verifier") is engines.of(
        run("yours", "nano-base"), "generator"
    )
    engines.close()
