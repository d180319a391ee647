"""The quotations that the lenient reading leaves out: block quotes, code fences, texts in quotation
marks, and lines below "The solution says:".
"""

from __future__ import annotations

import re
from itertools import islice

from proofloop.method.prompts.reading.fences import MAX_FENCES, blank_fences, unwrap
from proofloop.method.prompts.reading.normalize import normalize
from proofloop.method.prompts.reading.rules import Unreadable
from proofloop.method.prompts.reading.scores import read_score
from proofloop.method.prompts.reading.vocabulary import GRADING, QUOTES

SENTENCE = 200
"""The most characters of a sentence before and after a grading word."""

QUOTED_WITHIN = 4_000
"""The most characters between the start of a quotation and a score in it."""

_SENTENCE_END = re.compile(r"[.!?。！？][)\"”'*_]{0,3}\s|[。！？]|\n")
_QUOTE_BLOCK = re.compile(r"^ {0,3}>[^\n]*(?:\n {0,3}>[^\n]*)*", re.MULTILINE)
_OPENS, _CLOSES = "“«「『„", "”»」』"

DRESS = " \t\n*_`$#>|•+-=~\"'()[]"
"""The marks around a word that carry no meaning."""

WORD = re.compile(r"[^\W\d_]+")

_TOKENS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|return|>",
    "<|end|>",
    "</s>",
    "<｜end▁of▁sentence｜>",
)
_TOKENS_BACKWARDS = re.compile(
    rf"(?:(?:{'|'.join(re.escape(token[::-1]) for token in _TOKENS)})\s*+)++"
)
_INTRODUCES = re.compile(
    r"^(?!.*\b(?:evaluation|assessment|review)).*\b(?:solution|proof|submission|text)\W*:$"
)
_ENDS_OF_QUOTED = ("</solution>", "</proof>", "</quote>", "</blockquote>")


def unwrapped(text: str) -> str:
    """The answer without tokens of the chat template, and without a fence or block quote around the
    whole text.
    """
    text = unwrap(_without_tokens(text))
    if text.startswith(">") and text.count("\n>") == text.count("\n"):
        text = f"\n{text}".replace("\n> ", "\n").replace("\n>", "\n").strip()
    return text


def _without_tokens(text: str) -> str:
    """The text without tokens of the chat template at its end. The match runs backwards to be
    linear.
    """
    tokens = _TOKENS_BACKWARDS.match(text[::-1]) if text.endswith(_TOKENS) else None
    return text[: len(text) - tokens.end()] if tokens else text


def without_quotations(text: str) -> str:
    """The text with its quotations overwritten by spaces."""
    return _blank_quotes(blank_fences(text, _is_only_a_score))


def _blank_quotes(text: str) -> str:
    """The text with its block quotes overwritten by spaces. A block quote that holds only a score
    loses only its marks.
    """
    pieces, done = [], 0
    blocks = list(islice(_QUOTE_BLOCK.finditer(text) if ">" in text else (), MAX_FENCES + 1))
    if len(blocks) > MAX_FENCES:
        raise Unreadable(f"the final response has more than {MAX_FENCES} block quotes")
    for block in blocks:
        inside = block[0].replace(">", " ")
        pieces += [
            text[done : block.start()],
            inside if _is_only_a_score(inside) else " " * len(inside),
        ]
        done = block.end()
    return "".join([*pieces, text[done:]])


def _is_only_a_score(inside: str) -> bool:
    if len(inside) > SENTENCE:
        return False
    text = normalize(inside).strip(" \n`.")
    found = read_score(text, 0)
    if found is None or found.spelled is None or found.spelled.on(1) is None:
        return False
    return not text[found.end :].strip(" \n`.")


def sentence_start(text: str, place: int) -> int:
    """The start of the sentence around `place`, on the same line."""
    low = max(0, place - SENTENCE)
    ends = [match.end() for match in _SENTENCE_END.finditer(text, low, place)]
    return ends[-1] if ends else low


def is_own_words(text: str, place: int) -> bool:
    """Whether the sentence at `place` is the answer's own: neither in a quotation nor introduced as
    one.
    """
    start = sentence_start(text, place)
    lead = text[start:place]
    if (
        not GRADING.issuperset(WORD.findall(lead))
        or lead.count("`") % 2
        or _is_in_quotation(text, place)
    ):
        return False
    before = text[max(0, start - SENTENCE) : start].rstrip(DRESS)
    line = before[before.rfind("\n") + 1 :]
    if any(text.find(end, place, place + QUOTED_WITHIN) >= 0 for end in _ENDS_OF_QUOTED):
        return False
    return not introduces_quotation(line)


def introduces_quotation(line: str) -> bool:
    """Whether a line in lower case introduces a quotation: "the solution says:", "the proof:"."""
    return line.endswith(":") and bool(QUOTES.search(line) or _INTRODUCES.search(line))


def _is_in_quotation(text: str, place: int) -> bool:
    """Whether the last quotation mark before `place` opens."""
    low = max(0, place - QUOTED_WITHIN)
    last = max(text.rfind(mark, low, place) for mark in f'{_OPENS}{_CLOSES}"')
    is_closed_as_in_tex = last >= 0 and text[last] == "“" and text.find("''", last, place) >= 0
    if last < 0 or text[last] in _CLOSES or is_closed_as_in_tex:
        return False
    before, after = text[last - 1 : last], text[last + 1 : last + 2]
    return text[last] in _OPENS or ((not before or before in " \n([*_:—-") and not after.isspace())
