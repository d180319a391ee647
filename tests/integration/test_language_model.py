"""A real language model, SmolLM2-135M-Instruct, through engines, servers, the trainer and a whole
run.

It knows nothing of the formats: what is trained here is one lesson a role, learnt by heart.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("proofloop_trainer", reason="proofloop-trainer is not installed")

import torch
from transformers import AutoTokenizer
from typer.testing import CliRunner

from proofloop.cli.app import app
from proofloop.engine.base import ChatMessage, Generation, GenerationRequest
from proofloop.engine.openai.engine import OpenAIEngine
from proofloop.engine.openai.settings import OpenAISettings
from proofloop.method.prompts import load_pack
from proofloop.schema import keys
from proofloop.schema.records import Label, Proof, Sampling, Tokens, TrainingBatch, TrainingSample
from proofloop.store import LocalStore, get_record
from proofloop_serving.calls import encode
from proofloop_serving.engine import LocalEngine
from proofloop_serving.loading import LoadedModel, load_model
from proofloop_serving.text import TextStream
from proofloop_trainer.fine_tuning.supervised import Schedule, answer_to_learn, fine_tune
from proofloop_trainer.grpo.batch import answer_of, collate
from proofloop_trainer.grpo.learner import GrpoLearner
from proofloop_trainer.grpo.policy import score
from proofloop_trainer.grpo.settings import GrpoSettings
from tests.builders import answer, evaluation, meta_evaluation
from tests.integration.processes import transformers_serve
from tests.integration.triton_asking import FIRST, Server, ask
from tests.integration.triton_server import own_triton

pytestmark = pytest.mark.slow

FOXES = "Repeat this: 🦊🦊🦊🦊"
CHINESE = "Translate to Chinese: The sum of two even numbers is even."
PACK = load_pack("nano")
QUESTIONS = [f"Prove that {number} + {number} is even." for number in (1, 2, 3)]
PROOF, CLAIM = "It is twice a number.", "Step 1 has a gap."
LESSONS = [
    (PACK.prove(QUESTIONS[0]).text, answer(PROOF, "0.5", CLAIM)),
    (PACK.verify(QUESTIONS[0], PROOF).text, evaluation("0.5", CLAIM)),
    (PACK.judge(QUESTIONS[0], PROOF, evaluation("0.5", CLAIM)).text, meta_evaluation("1")),
]


@pytest.fixture(scope="module")
def engine(smollm2: Path) -> Iterator[LocalEngine]:
    engine = LocalEngine(lambda _: smollm2)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def sampled(engine: LocalEngine) -> list[Generation]:
    """Four answers to two prompts of different lengths, sampled in one batch."""
    prompts = [FOXES, PACK.prove(QUESTIONS[0]).text]
    calls = [
        engine.submit(request(prompt, seed, temperature=1.0))
        for prompt in prompts
        for seed in (1, 2)
    ]
    return [call.result(120) for call in calls]


@pytest.fixture(scope="module")
def taught(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model after a few supervised steps on one lesson a role."""
    loaded, out = load_model(smollm2), tmp_path_factory.mktemp("taught") / "model"
    lessons = [answer_to_learn(_tokens(loaded, prompt, said)) for prompt, said in LESSONS]
    how = Schedule(batch=len(lessons), learning_rate=5e-4, epochs=8, tokens_per_pass=300)
    fine_tune(smollm2, out, lessons, how, seed=0)
    return out


def request(
    prompt: str, seed: int = 1, temperature: float = 0.0, max_tokens: int = 24
) -> GenerationRequest:
    sampling = Sampling(max_tokens=max_tokens, temperature=temperature)
    return GenerationRequest(
        f"generator:{seed}", "smollm2", (ChatMessage("user", prompt),), sampling, seed
    )


def _tokens(loaded: LoadedModel, prompt: str, said: str) -> Tokens:
    prompt_ids = encode(loaded.tokenizer, [ChatMessage("user", prompt)])
    completion = (*loaded.tokenizer.encode(said), loaded.tokenizer.eos_token_id)
    return Tokens(
        prompt_ids=prompt_ids, completion_ids=completion, logprobs=(0.0,) * len(completion)
    )


# -- characters that are several tokens
# --------------------------------------------------------------------------------


def test_an_answer_of_characters_that_are_several_tokens_each_is_whole(engine: LocalEngine) -> None:
    found = engine.submit(request(FOXES)).result(120)
    assert (found.text, found.finish_reason) == ("🦊🦊🦊🦊", "stop")
    assert found.completion_tokens > 2 * len(found.text)


@pytest.mark.parametrize(
    "text",
    [
        "偶数之和是偶数。",
        "∀ε>0 ∃δ: ‖x‖<δ ⟹ 𝔸⊂ℝⁿ",
        "naïve Çà et là",
        "👩‍👩‍👧 🦊\n\n🏳️‍🌈",
        "Пусть n чётно",
        "שלום عليكم",
        "e\u0301",
    ],
)
def test_a_stream_shows_no_half_of_a_character_and_ends_with_the_whole_text(
    smollm2: Path, text: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    stream, shown = TextStream(tokenizer), [""]
    for token in tokenizer.encode(text):
        shown.append(stream.add(token))
    assert shown[-1] == text
    assert all(text.startswith(each) for each in shown) and len(set(shown)) > 2


# -- the trainer
# --------------------------------------------------------------------------------------------------


def test_the_trainer_computes_the_samplers_logprobs_and_a_step_moves_the_model(
    smollm2: Path, sampled: list[Generation]
) -> None:
    learner = GrpoLearner(smollm2, GrpoSettings(epochs=1, kl_coefficient=0.1, learning_rate=1e-5))
    for found in sampled:
        with torch.no_grad():
            scores = score(learner.model, collate([answer_of(found.tokens)]))
        completion = slice(len(found.tokens.prompt_ids), None)
        assert scores.logprobs_BT[0, completion].tolist() == pytest.approx(
            found.tokens.logprobs, abs=1e-3
        )
    before = learner.model.model.norm.weight.detach().clone()
    report = learner.step(
        TrainingBatch(run_id="r", role="generator", step=0, samples=samples_of(sampled))
    )
    assert (report.updates, report.groups, report.groups_without_signal) == (1, 2, 0)
    assert report.mean_ratio == pytest.approx(1, abs=1e-3) and report.kl == pytest.approx(
        0, abs=1e-4
    )
    assert report.grad_norm > 0 and not torch.equal(learner.model.model.norm.weight, before)


def samples_of(sampled: list[Generation]) -> tuple[TrainingSample, ...]:
    """In each group of two the first answer earns a reward."""
    return tuple(
        TrainingSample(
            key=str(place),
            role="generator",
            group=str(place // 2),
            tokens=found.tokens,
            reward=float(place % 2 == 0),
            reward_parts={},
            model_version="smollm2",
        )
        for place, found in enumerate(sampled)
    )


# 45 s of processor time for the eight steps, on a machine that may be busy.
@pytest.mark.timeout(900)
def test_after_supervised_steps_every_answer_of_a_run_is_readable(
    taught: Path, tmp_path: Path
) -> None:
    rows = [{"id": f"p{number}", "question": question} for number, question in enumerate(QUESTIONS)]
    (tmp_path / "problems.json").write_text(json.dumps(rows))
    (tmp_path / "run.toml").write_text(RUN.format(model=taught))
    done = CliRunner().invoke(
        app, ["run", str(tmp_path / "run.toml"), "--store", str(tmp_path / "store")]
    )
    assert done.exit_code == 0, done.output
    store = LocalStore(tmp_path / "store")
    labels = [get_record(store, key, Label) for key in store.list(keys.labels("three"))]
    proofs = [get_record(store, keys.proof("three", label.proof_id), Proof) for label in labels]
    assert [proof.solution for proof in proofs] == [PROOF] * 3
    assert [(label.outcome, label.score) for label in labels] == [("rejected", 0.5)] * 3


RUN = """
name = "three"
prompts = "nano"
[problems]
file = "problems.json"
proofs_per_problem = 1
[models]
generator = "{model}"
verifier = "{model}"
meta_verifier = "{model}"
[sampling]
generator = {{ temperature = 0.0, max_tokens = 120 }}
verifier = {{ temperature = 0.0, max_tokens = 80 }}
meta_verifier = {{ temperature = 0.0, max_tokens = 80 }}
[labeling]
n = 1
m = 1
k = 1
"""

# -- servers
# --------------------------------------------------------------------------------------------------


def test_transformers_serve_gives_the_engine_openai_the_answers_of_the_engine_local(
    smollm2: Path, engine: LocalEngine, tmp_path: Path
) -> None:
    with transformers_serve(smollm2, tmp_path / "log") as url:
        served = OpenAIEngine(OpenAISettings(base_url=url, model=str(smollm2), max_attempts=1))
        for prompt in (FOXES, CHINESE):
            found = served.submit(request(prompt)).result(120)
            expected = engine.submit(request(prompt)).result(120)
            assert (found.text, found.finish_reason) == (expected.text, expected.finish_reason)
            assert (found.prompt_tokens, found.completion_tokens) == (
                expected.prompt_tokens,
                expected.completion_tokens,
            )
        served.close()


def test_triton_streams_the_answers_of_the_engine_local_in_whole_characters(
    smollm2: Path, engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROOFLOOP_STORE", str(tmp_path / "store"))
    with own_triton() as triton:
        server = Server(triton, LocalStore(tmp_path / "store"))
        server.publish(FIRST, smollm2, tmp_path / "published")
        server.load(FIRST)
        wanted = {
            "streaming": True,
            "sampling_param_max_tokens": 24,
            "sampling_param_seed": 1,
            "sampling_param_exclude_input_from_output": True,
            "return_tokens": True,
            "return_finish_reason": True,
        }
        for prompt, temperature in ((FOXES, 0.0), (CHINESE, 0.0), (CHINESE, 1.0)):
            messages = json.dumps([{"role": "user", "content": prompt}])
            asked = ask(server, messages=messages, sampling_param_temperature=temperature, **wanted)
            last = asked.last()
            expected = engine.submit(request(prompt, temperature=temperature)).result(120)
            assert last["text_output"][0].decode() == expected.text
            assert tuple(last["token_ids"]) == expected.tokens.completion_ids
            assert last["logprobs"].tolist() == pytest.approx(expected.tokens.logprobs, abs=1e-4)
            pieces = [chunk["text_output"][0].decode() for chunk in asked.chunks[:-1]]
            assert pieces and all(
                expected.text.startswith(piece) and "\ufffd" not in piece for piece in pieces
            )
