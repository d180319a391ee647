"""A tiny model of today's instruct architectures that answers each role's prompt in its format,
with any score.

Random weights would never earn a reward. Each answer is one token of its vocabulary: that much is
soon learnt.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from proofloop.method.prompts import load_pack
from proofloop.schema.records import Tokens
from proofloop_trainer.export import copy_model
from proofloop_trainer.fine_tuning.supervised import Schedule, answer_to_learn, fine_tune
from tests.builders import answer, evaluation, meta_evaluation

PACK = load_pack("math")
PAD, TURN, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content']"
    " }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PROOF, CLAIM, SCORES = "Trivial.", "Step 1 is wrong.", ("0", "0.5", "1")
PROOFS = [answer(PROOF, score, CLAIM) for score in SCORES]
CRITIQUES = [evaluation(score, CLAIM) for score in SCORES]
META_CRITIQUES = [meta_evaluation(score) for score in SCORES]


def save_tiny_instruct(folder: Path, config_type: type[PretrainedConfig], **fields: object) -> Path:
    """The model in bf16, as such models are published: it is trained in 32 bits, and its versions
    serve in 16.
    """
    tokenizer = _tokenizer()
    config = config_type(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=8192,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        **fields,
    )
    disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(
            folder / "random"
        )
    tokenizer.save_pretrained(folder / "random")
    how = Schedule(batch=8, learning_rate=1e-2, epochs=10)
    fine_tune(
        folder / "random",
        folder / "taught",
        [answer_to_learn(lesson) for lesson in _lessons(tokenizer)],
        how,
        0,
    )
    copy_model(folder / "taught", folder, torch.bfloat16)
    return folder


def _tokenizer() -> PreTrainedTokenizerFast:
    """Learnt from the prompts that it will read; bytes where it knows no more."""
    tokenizer, pieces = Tokenizer(models.BPE()), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer, tokenizer.decoder = pieces, decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        special_tokens=[PAD, TURN, END],
        initial_alphabet=pieces.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([prompt for prompt, _ in _exchanges("")], trainer)
    answers = [*PROOFS, *CRITIQUES, *META_CRITIQUES]
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in answers])
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD)
    made.chat_template = TEMPLATE
    return made


def _lessons(tokenizer: PreTrainedTokenizerFast) -> list[Tokens]:
    """Every answer to every role's prompt, of a few problems."""
    lessons = []
    for prompt, answers in (
        each for number in range(4) for each in _exchanges(f"Prove that {number} = {number}.")
    ):
        turns = [{"role": "user", "content": prompt}]
        read = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        for text in answers:
            said = (*tokenizer.encode(text), tokenizer.eos_token_id)
            lessons.append(
                Tokens(prompt_ids=tuple(read), completion_ids=said, logprobs=(0.0,) * len(said))
            )
    return lessons


def _exchanges(question: str) -> list[tuple[str, list[str]]]:
    return [
        (PACK.prove(question).text, PROOFS),
        (PACK.verify(question, PROOF).text, CRITIQUES),
        (PACK.judge(question, PROOF, CRITIQUES[0]).text, META_CRITIQUES),
    ]
