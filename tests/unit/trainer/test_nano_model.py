"""The nano tokenizer, its demonstrations, and the shipped base model against its card."""

import itertools
import random
import re
import shutil
from collections import Counter
from inspect import signature
from itertools import zip_longest

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from proofloop.cli.nano import train
from proofloop.errors import ConfigError
from proofloop.method.domains.nano import (
    FLAW_KINDS,
    LABELS,
    NanoDomain,
    check_proof,
    parse_question,
    render_proof,
    true_lines,
)
from proofloop.method.prompts import Reader
from proofloop_trainer.nano import BASE_FOLDER
from proofloop_trainer.nano.claims import IGNORED
from proofloop_trainer.nano.demonstrations import demonstrate
from proofloop_trainer.nano.flaws import mark_lines, write_proof
from proofloop_trainer.nano.pretrain import (
    DEFAULT_STEPS,
    cold_start,
    demonstration_batches,
    practice_batches,
)
from proofloop_trainer.nano.tokenizer import PHRASES, build_tokenizer, normalize

# Threads that wait for one another cost more than a model this small gains.
torch.set_num_threads(1)
TOKENIZER = build_tokenizer()
SHOWN = list(itertools.islice(demonstrate(1), 400))
KNOWN_TEXTS = st.lists(st.sampled_from(PHRASES), max_size=40).map("".join).map(normalize)


def test_every_demonstration_survives_the_tokenizer():
    for shown in SHOWN:
        for text in (shown.prompt, shown.answer):
            tokens = TOKENIZER(text).input_ids
            assert TOKENIZER.unk_token_id not in tokens
            assert TOKENIZER.decode(tokens) == text == normalize(text)


@given(KNOWN_TEXTS)
@settings(max_examples=200)
def test_text_made_of_known_phrases_decodes_to_itself(text):
    tokens = TOKENIZER(text).input_ids
    if TOKENIZER.unk_token_id not in tokens:  # two phrases may meet in a way that reads as a third
        assert TOKENIZER.decode(tokens) == text


@given(st.text(max_size=300))
def test_any_text_is_encoded(text):
    assert all(0 <= token < len(TOKENIZER) for token in TOKENIZER(text).input_ids)


def test_answers_are_short():
    lengths = {}
    for shown in SHOWN:
        lengths.setdefault(shown.prompt.split(maxsplit=1)[0], []).append(
            len(TOKENIZER(shown.answer).input_ids)
        )
    assert max(lengths["Prove"]) <= 84
    assert max(lengths["Evaluate"]) <= 30
    assert max(lengths["Judge"]) <= 12


def test_demonstrations_are_in_format_and_show_every_flaw_kind():
    reader = Reader()
    parsers = {
        "Prove": reader.proof,
        "Improve": reader.proof,
        "Evaluate": reader.evaluation,
        "Judge": reader.meta_critique,
    }
    for shown in SHOWN:
        assert (
            parsers[shown.prompt.split(maxsplit=1)[0]](shown.answer, "stop").verdict.outcome
            == "valid"
        )
    critiques = " ".join(shown.answer for shown in SHOWN if shown.prompt.startswith("Evaluate"))
    assert {kind for kind in FLAW_KINDS if kind in critiques} == set(FLAW_KINDS)


def test_demonstrations_depend_on_their_seed_only():
    assert list(itertools.islice(demonstrate(1), 50)) == SHOWN[:50]
    assert list(itertools.islice(demonstrate(2), 50)) != SHOWN[:50]


def test_a_proof_has_wrong_marks_exactly_if_a_step_shown_is_wrong():
    rng, domain = random.Random(0), NanoDomain()
    for index in range(200):
        question = domain.pose(index, split="train", seed=0).question
        chain = parse_question(question)
        lines = write_proof(rng, chain, 0.7)
        defects = check_proof(question, render_proof(lines)).defects
        shown_later = any(
            defect.kind != "missing" or defect.step < lines[-1].label for defect in defects if lines
        )
        assert any(any(marks) for marks in mark_lines(chain, lines)) == shown_later
    assert not any(any(marks) for marks in mark_lines(chain, true_lines(chain)))


def test_each_field_of_an_omission_under_judgement_is_marked_as_the_checker_has_it():
    """Marks of what is right are 0, others name the step; where the step is not missing its label
    is what is wrong.
    """
    ids = {phrase: TOKENIZER.convert_tokens_to_ids(phrase) for phrase in PHRASES}
    seen = Counter[str]()
    for batch in itertools.islice(practice_batches(TOKENIZER, seed=3), 8):
        for tokens, marks in zip(batch.tokens_BT.tolist(), batch.marks_BT.tolist(), strict=True):
            end = tokens.index(TOKENIZER.convert_tokens_to_ids("<assistant>"))
            question, proof, *analysis = TOKENIZER.decode(tokens[2:end]).split("\n\n", maxsplit=2)
            defects = check_proof(question, proof.removeprefix("Proof:\n")).defects
            true = {defect.step: re.findall(r"[-+*]|\d", defect.detail) for defect in defects}
            for place in (
                place for place in range(end) if analysis and tokens[place] == ids[" is missing:"]
            ):
                label = TOKENIZER.decode(tokens[place - 1])
                goes_on = tokens[place + 6] == ids[", then "]
                places = [
                    place + offset for offset in ((1, 2, 3, 5, 8) if goes_on else (1, 2, 3, 5))
                ]
                fields = [TOKENIZER.decode(tokens[each]).strip() for each in places]
                at_fault, right = 1 + LABELS.index(label), true.get(label, [])
                assert marks[place - 1] == (0 if right else at_fault)
                wrong = [
                    at_fault * (field != one) if right else IGNORED
                    for field, one in zip_longest(fields, right)
                ]
                assert [marks[each] for each in places] == wrong[: len(places)]
                seen[
                    "last wrong"
                    if right and wrong[4:] > [0]
                    else "line wrong"
                    if any(wrong)
                    else "true"
                ] += 1
                seen["not missing"] += not right
    assert min(seen[each] for each in ("last wrong", "line wrong", "true", "not missing")) > 4, seen


def test_the_command_trains_as_many_steps_as_the_shipped_model_had():
    assert signature(train).parameters["steps"].default == DEFAULT_STEPS


def test_nothing_of_a_prompt_or_padding_is_learnt_as_an_answer():
    batch = next(demonstration_batches(TOKENIZER, seed=0))
    for tokens, targets in zip(batch.tokens_BT.tolist(), batch.targets_BT.tolist(), strict=True):
        answer = tokens.index(TOKENIZER.convert_tokens_to_ids("<assistant>")) + 1
        end = tokens.index(TOKENIZER.eos_token_id) + 1
        assert targets == [IGNORED] * answer + tokens[answer:end] + [IGNORED] * (len(tokens) - end)


def test_the_base_model_is_small():
    assert sum(path.stat().st_size for path in BASE_FOLDER.iterdir()) < 10 * 2**20


@pytest.mark.parametrize("start", ["wider", "other words", "known to the engine alone"])
def test_a_cold_start_of_another_model_is_refused_with_the_way_out(tmp_path, start):
    if start == "wider":
        sizes = {
            "hidden_size": 128,
            "intermediate_size": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
        }
        LlamaForCausalLM(LlamaConfig(vocab_size=len(TOKENIZER), **sizes)).save_pretrained(
            tmp_path / start
        )
        TOKENIZER.save_pretrained(tmp_path / start)
    if start == "other words":
        shutil.copytree(BASE_FOLDER, tmp_path / start)
        file = tmp_path / start / "tokenizer.json"
        file.write_text(file.read_text().replace("Evaluation", "Appraisal"))
    said = (
        rf"{start} is not a nano model .*\nhint: .*demonstrations from a file.* \[cold_start\]"
        r" steps = 0"
    )
    with pytest.raises(ConfigError, match=said):
        cold_start(
            tmp_path / start, tmp_path / "out", seed=0, steps=600, batch=48, learning_rate=1e-3
        )


def test_a_cold_start_goes_on_from_a_nano_model(tmp_path):
    cold_start(BASE_FOLDER, tmp_path, seed=0, steps=1, batch=2, learning_rate=1e-3)
    assert (tmp_path / "model.safetensors").is_file()
