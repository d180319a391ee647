"""The lenient reading: finds a score only where a careful person would be sure of it.

The rules, for the evaluation in a final response. Quotations do not count: closed code fences,
block quotes and texts in quotation marks, unless a fence or block quote holds only the score. Text
before the first intro ("Here is my evaluation of the solution:", or a heading such as
"### Evaluation") does not count either, because it may quote a proof.

1. A *phrase score* follows the pack's own phrase. Case, emphasis, line breaks and auxiliary words
  of the phrase are free.
2. A *labeled score* follows, at the start of a sentence, words that only grade: "**Score:** 1",
  "I rate this proof 0.5", "My final grade is \\boxed{0}". Any other word, a hedge or a range makes
  it invalid.
3. A *closing score* is a box by itself at the very end, if there is an intro or the words before it
  judge a solution.

Phrase scores decide. Without them the labeled scores decide, starting from the first that is
called final; without those the closing score. All these scores, and every later labeled or closing
score, must agree. Two different scores make the answer unreadable, because a proof may have planted
one of them. A score other than 0, 0.5 and 1, and a phrase without a score, make it unreadable too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from proofloop.method.prompts.phrases import Phrases
from proofloop.method.prompts.reading.fences import MAX_FENCES, blank_fences, unwrap
from proofloop.method.prompts.reading.headings import find_headings
from proofloop.method.prompts.reading.normalize import lower, normalize
from proofloop.method.prompts.reading.rules import (
    REPEATS,
    ExpectedFormat,
    Rules,
    Unreadable,
    between,
    illegal_score,
    one_heading,
    two_scores,
)
from proofloop.method.prompts.reading.scores import BEGINS, ends_statement, read_score
from proofloop.method.prompts.reading.vocabulary import (
    FINAL,
    GRADING,
    JUDGED,
    JUDGEMENTS,
    OTHER_LANGUAGES,
    QUOTES,
    SCORING,
    SOLVING,
)
from proofloop.schema.records import Score

TAIL = 8_000
"""The length in characters of the end of an answer that may hold a labeled or closing score."""

SENTENCE = 200
"""The most characters of a sentence before and after a grading word."""

QUOTED_WITHIN = 4_000
"""The most characters between the start of a quotation and a score in it."""

MAX_HITS = 1_000
"""The most occurrences of a phrase's word in an answer; more are garbage."""

MAX_GRADINGS = 200
"""The most grading words at the end of an answer; more are garbage."""

_OPTIONAL = frozenset(
    ["will", "would", "the", "my", "overall", "overal", "final", "should", "be", "that", "a", "is"]
)
_COPULA = re.compile(
    r"(?:\W{1,12}(?:is|be|would|should|will|must|as|at|a|equals?|score|rating|of|with|the)\b){0,6}"
)
_LIST_ITEM = re.compile(r"\d{1,2}[.)]\s{1,5}\w")
_QUOTED_SCORE = re.compile(
    r"[^\w\\]{0,40}(?:\\\[|\\\()?\s{0,5}(?:\\boxed\s?\{[^{}\n]{0,40}\}|[\d.,/]{1,6})"
)
_INTRO = re.compile(
    r"[ \t*_#>|\d.)-]{0,12}(?:here(?: is|['’]s) )?(?:(?:my|the|an?|final|overall|detailed)["
    r" -]){0,3}"
    r"(?:evaluation|assessment|review|critique|verification|grading)(?: of (?:the|this|my)"
    r" (?:solution|proof))?"
    r"[ \t*_:#.\r]{0,8}"
)
_INTRO_WORDS = ("evaluation", "assessment", "review", "critique", "verification", "grading")
_SENTENCE_END = re.compile(r"[.!?。！？][)\"”'*_]{0,3}\s|[。！？]|\n")
_GAP = re.compile(r"(?:[\s:=`|#\"'(\[•→]|[.-](?=\s)){0,60}")
_QUOTE_BLOCK = re.compile(r"^ {0,3}>[^\n]*(?:\n {0,3}>[^\n]*)*", re.MULTILINE)
_OPENS, _CLOSES = "“«「『„", "”»」』"
_CLOSERS = re.compile(r"[\s.*`$~|>_)\]\u220e\u25a0\u25a1-]*")
_BOXED = re.compile(r"\\{0,2}\bf?boxed\b")
_DRESS = " \t\n*_`$#>|•+-=~\"'()[]"
_WORD = re.compile(r"[^\W\d_]+")
_SCORING = re.compile(rf"\b(?:{'|'.join(sorted(SCORING))})\b")
_FOREIGN_LABEL = re.compile(rf"\n[ #>|•*-]{{0,8}}(?:{OTHER_LANGUAGES.pattern})(?=[ :=]|\d|\\)")
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
_UNFINISHED = frozenset(
    ["is", "are", "be", "equals", "exactly", "as", "that", "to", "of", "gives", "namely", "value"]
)


@dataclass(frozen=True)
class StatedScore:
    """A score that the answer states. `is_final`: its sentence calls it final."""

    shown: str
    score: Score | None
    is_number: bool = True
    is_final: bool = False


def _unwrapped(text: str) -> str:
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


def _visible(text: str) -> str:
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
    return found is not None and found.score is not None and not text[found.end :].strip(" \n`.")


def _sections(visible: str, phrases: Phrases) -> tuple[slice, slice]:
    solution = one_heading(
        find_headings(visible, phrases.solution_heading), phrases.solution_heading
    )
    own = one_heading(find_headings(visible, phrases.self_heading), phrases.self_heading)
    return between(solution, own, phrases)


def _score(visible: str, expected: ExpectedFormat) -> Score:
    text = _drop_quoted_scores(f"\n{lower(visible)}\n", expected)
    begun = _evaluation_start(text, expected.intro)
    own = text if begun is None else text[begun:]
    phrases, rest = _phrase_scores(own, expected.score)
    tail = normalize(rest[-TAIL:])
    closing = _closing(tail, has_begun=begun is not None or expected.has_begun)
    return _agreed(_deciding(phrases, _labeled(tail), closing))


def _deciding(
    phrases: list[StatedScore], labeled: list[StatedScore], closing: list[StatedScore]
) -> list[StatedScore]:
    """The stated scores that must agree."""
    if phrases:
        return [*phrases, *labeled, *closing]
    final = next((number for number, each in enumerate(labeled) if each.is_final), None)
    if (
        final is None
        and len(labeled) > 1
        and not closing
        and len({each.score for each in labeled}) == 1
    ):
        raise Unreadable("several scores, none of them called final")
    return [*labeled[final or 0 :], *closing]


def _agreed(statements: list[StatedScore]) -> Score:
    if not statements:
        raise Unreadable("no score found")
    last = statements[-1]
    for other in statements:
        if other.score != last.score:
            raise two_scores(other.shown, last.shown)
    if last.score is None:
        raise illegal_score(last.shown)
    return last.score


# -- phrases
# --------------------------------------------------------------------------------------------------


@lru_cache
def _loose(phrase: str) -> tuple[str, re.Pattern[str]]:
    """The phrase's first word, and a pattern of the phrase with any marks, spaces and line breaks
    between its words.
    """
    first, *others = _WORD.findall(phrase.lower())
    pattern = re.escape(first)
    for word in others:
        spelled = rf"\W{{1,12}}{'overall?' if word in ('overal', 'overall') else re.escape(word)}"
        pattern += f"(?:{spelled})?" if word in _OPTIONAL else spelled
    return first, re.compile(rf"{pattern}(?!\w)[\"”'’*_]{{0,4}}")


def _find_phrase(text: str, phrase: str) -> Iterator[re.Match[str]]:
    first, pattern = _loose(phrase)
    found = (pattern.match(text, place) for place in _places(text, first))
    return (match for match in found if match is not None)


def _places(text: str, word: str) -> Iterator[int]:
    """The positions of the word. Raises Unreadable for too many of them."""
    place = text.find(word)
    for _ in range(MAX_HITS):
        if place < 0:
            return
        yield place
        place = text.find(word, place + len(word))
    if place >= 0:
        raise Unreadable(f"the answer repeats {word!r} more than {MAX_HITS} times", cause=REPEATS)


def _drop_quoted_scores(text: str, expected: ExpectedFormat) -> str:
    """The text without scores after another role's phrase: they are quotations."""
    for phrase in expected.others:
        if _loose(phrase) != _loose(expected.score):
            pieces, done = [], 0
            for found in _find_phrase(text, phrase):
                score = _QUOTED_SCORE.match(text, found.end())
                pieces.append(text[done : found.start()])
                done = score.end() if score else found.end()
            text = "".join([*pieces, text[done:]])
    return text


def _evaluation_start(text: str, intro: str) -> int | None:
    """The start of the evaluation, after its first intro or heading; None without either."""
    intros = (
        (match.end() for match in _find_phrase(text, intro) if _is_own_words(text, match.start()))
        if intro
        else ()
    )
    found = list(islice(intros, 1))
    for word in _INTRO_WORDS:
        for place in islice(_places(text, word), MAX_HITS):
            start, end = text.rfind("\n", 0, place) + 1, text.find("\n", place)
            if (
                place - start < SENTENCE
                and end - place < SENTENCE
                and _INTRO.fullmatch(text, start, end)
            ):
                found.append(end)
                break
    return min(found, default=None)


def _phrase_scores(text: str, phrase: str) -> tuple[list[StatedScore], str]:
    """The scores after the phrase, and the text after the last phrase. Raises Unreadable if that
    phrase has no score.
    """
    own = [match for match in _find_phrase(text, phrase) if _is_own_words(text, match.start())]
    scores = [_score_after(text, match.end()) for match in own]
    if not own:
        return [], text
    if scores[-1] is None:
        raise Unreadable(f"no score follows {phrase!r}")
    # a score that is not a number belongs to a quoted sample answer
    scores_before = [score for score in scores[:-1] if score is not None and score.is_number]
    return [*scores_before, scores[-1]], text[own[-1].end() :]


def _score_after(text: str, start: int) -> StatedScore | None:
    copula = _COPULA.match(text, start)
    window = normalize(text[copula.end() if copula else start :][:SENTENCE])
    gap = _GAP.match(window)
    place = gap.end() if gap else 0
    if _LIST_ITEM.match(window, place) and "\n" in window[:place]:
        return None
    return _statement(window, place)


def _statement(text: str, start: int, *, is_final: bool = False) -> StatedScore | None:
    """The score at `start` of a normalized text; None if the number is part of a sentence."""
    found = read_score(text, start)
    if found is None:
        return None
    ends = ends_statement(text, found.end)
    if ends is None:
        return None
    return StatedScore(found.shown, found.score if ends else None, found.is_number, is_final)


# -- labels
# --------------------------------------------------------------------------------------------------


def _labeled(tail: str) -> list[StatedScore]:
    """The labeled scores of a normalized text, in order."""
    found: dict[int, StatedScore] = {}
    for number, word in enumerate(_SCORING.finditer(tail)):
        if number == MAX_GRADINGS:
            raise Unreadable(f"the end of the answer has more than {MAX_GRADINGS} grading words")
        begins = BEGINS.search(tail, word.end(), word.end() + SENTENCE)
        if begins is not None and begins.start() not in found:
            statement = _graded(tail, _sentence_start(tail, word.start()), begins.start())
            if statement is not None:
                found[begins.start()] = statement
    for label in _FOREIGN_LABEL.finditer(tail):
        gap = _GAP.match(tail, label.end())
        start = gap.end() if gap else label.end()
        if start not in found and (statement := _statement(tail, start)) is not None:
            found[start] = statement
    return [found[place] for place in sorted(found)]


def _graded(tail: str, start: int, place: int) -> StatedScore | None:
    """The score at `place` if its sentence, which starts at `start`, only grades."""
    words = _WORD.findall(tail[start:place])
    is_other_line = "\n" in tail[start:place].strip("\n")
    if (
        not GRADING.issuperset(words)
        or re.search(r"\d|\\|[<>≤≥≈%]", tail[start:place])
        or not _is_own_words(tail, start)
    ):
        return None
    statement = _statement(tail, place, is_final=not FINAL.isdisjoint(words))
    if statement is not None and is_other_line and _rest(tail, place):
        return None
    return statement


def _rest(tail: str, place: int) -> str:
    """The text after the score at `place`, up to the end of its line."""
    found = read_score(tail, place)
    end = found.end if found else place
    return tail[end : tail.find("\n", end)].strip(_DRESS)


def _sentence_start(text: str, place: int) -> int:
    """The start of the sentence around `place`, on the same line."""
    low = max(0, place - SENTENCE)
    ends = [match.end() for match in _SENTENCE_END.finditer(text, low, place)]
    return ends[-1] if ends else low


def _is_own_words(text: str, place: int) -> bool:
    """Whether the sentence at `place` is the answer's own: neither in a quotation nor introduced as
    one.
    """
    start = _sentence_start(text, place)
    lead = text[start:place]
    if (
        not GRADING.issuperset(_WORD.findall(lead))
        or lead.count("`") % 2
        or _is_in_quotation(text, place)
    ):
        return False
    before = text[max(0, start - SENTENCE) : start].rstrip(_DRESS)
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


# -- closing boxes
# --------------------------------------------------------------------------------------------------


def _closing(tail: str, *, has_begun: bool) -> list[StatedScore]:
    """The boxes on lines of their own, with the box that ends the text last; [] if that box may not
    be a score.
    """
    boxes = [found.start() for found in _BOXED.finditer(tail)]
    if not boxes or not _ends_at(tail, boxes[-1]) or not _stands_alone(tail, boxes[-1]):
        return []
    if not (has_begun or _judges(tail[: boxes[-1]])) or not _is_own_words(tail, boxes[-1]):
        return []
    read = [
        _statement(tail, place)
        for place in boxes
        if place == boxes[-1] or _has_own_line(tail, place)
    ]
    *before, last = read
    if last is None or not last.is_number:
        return []
    return [*(each for each in before if each is not None and each.score is not None), last]


def _ends_at(tail: str, place: int) -> bool:
    found = read_score(tail, place)
    return found is not None and _CLOSERS.fullmatch(tail, found.end) is not None


def _has_own_line(tail: str, place: int) -> bool:
    return not tail[tail.rfind("\n", 0, place) + 1 : place].strip(_DRESS) and not _rest(tail, place)


def _stands_alone(tail: str, place: int) -> bool:
    """Whether the box is not the end of a sentence: the text before it is complete, or is a grading
    heading.
    """
    before = tail[max(0, place - SENTENCE) : place].rstrip(_DRESS)
    if not before:
        return True
    line = before[before.rfind("\n") + 1 :]
    words = _WORD.findall(line)
    if GRADING.issuperset(words) and not (words and words[-1] in _UNFINISHED):
        return "answer" not in words or words == ["final", "answer"]
    if before[-1] in ".!?。！？∎□":
        return True
    is_listed = re.match(r"\s*(?:[#•|+-]|\d{1,2}[.)])", line) is not None
    return is_listed and before[-1] not in ":," and not (words and words[-1] in _UNFINISHED)


def _judges(text: str) -> bool:
    """Whether a sentence of the text grades a solution, and the text does not solve the problem
    itself.
    """
    words = set(_WORD.findall(text))
    if words & SOLVING:
        return False
    sentences = (
        set(_WORD.findall(sentence)) for sentence in re.split(r"[.!?\n]", text[-QUOTED_WITHIN:])
    )
    return any(sentence & JUDGED and sentence & JUDGEMENTS for sentence in sentences)


LENIENT = Rules(unwrapped=_unwrapped, visible=_visible, sections=_sections, score=_score)
