"""The nano tokenizer: one token for each fixed phrase, digit, label, operator and flaw kind, so
that answers are short.

Tokens include spaces (" 7", ". "). A text that `normalize` does not change decodes to itself.
"""

from __future__ import annotations

import re

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from proofloop.method.domains.nano import LABELS, NO_ISSUE, OPERATORS

SOLUTION = "## Solution\n"
SELF_EVALUATION = "\n\n## Self Evaluation\n\n"
EVALUATION = "Here is my evaluation of the solution:\n"
EVALUATION_SCORE = "\n\nBased on my evaluation, the final overall score should be:\n"
JUDGEMENT = 'Here is my analysis of the "solution evaluation":\n'
JUDGEMENT_SCORE = '\n\nBased on my analysis, I will rate the "solution evaluation" as:\n'
NO_CLAIM = "No defect is claimed."
SCORES = ("\\boxed{0}", "\\boxed{0.5}", "\\boxed{1}")

SPECIAL_TOKENS = ("<pad>", "<unk>", "<eos>", "<user>", "<assistant>")
PHRASES = (
    "Prove the statement.\n",
    "Improve the proof.\n",
    "Evaluate the proof.\n",
    "Judge the evaluation.\n",
    "Modulo 10, start at",
    ". Show that the result is",
    ". ",
    ".",
    "\n\nProof:\n",
    "\n\nEvaluation:\n",
    "\n",
    SOLUTION,
    SELF_EVALUATION,
    EVALUATION,
    EVALUATION_SCORE,
    JUDGEMENT,
    JUDGEMENT_SCORE,
    NO_ISSUE,
    NO_CLAIM,
    "Step ",
    " is miscalculated.",
    " is miscopied.",
    " is missing:",
    ", then ",
    ": real.",
    ": fake.",
    *SCORES,
    *LABELS,
    " =",
    *(f" {operator}" for operator in OPERATORS),
    *(f" {digit}" for digit in range(10)),
)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<assistant>{{ message['content'] }}<eos>"
    "{% else %}<user>{{ message['content'] }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
_BLANKS = (("\r\n?", "\n"), (r"[^\S\n]+", " "), (" ?\n ?", "\n"))


def normalize(text: str) -> str:
    """Reduce runs of blanks to one, and to none beside a newline, as `decode(encode(text))`
    does.
    """
    for pattern, replacement in _BLANKS:
        text = re.sub(pattern, replacement, text)
    return text


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer. A run of unknown text becomes one `<unk>`."""
    vocabulary = {token: number for number, token in enumerate((*SPECIAL_TOKENS, *PHRASES))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(a), b) for a, b in _BLANKS]
    )
    longest_first = sorted(PHRASES, key=len, reverse=True)
    pattern = Regex("|".join(_quote(phrase) for phrase in longest_first))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern, behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<eos>",
        additional_special_tokens=["<user>", "<assistant>"],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )


def _quote(text: str) -> str:
    """Escape the characters that are special in the tokenizer's regular expressions."""
    return re.sub(r"([\\.*+?()\[\]{}|^$-])", r"\\\1", text)
