"""Reads a score where a careful person is sure of it, and nowhere else.

The rule, for the evaluation in a final response. What it only quotes does not count: closed code
fences, block quotes and texts in quotation marks, unless a fence or quote holds the score alone.
Nor does what stands before the first intro ("Here is my evaluation of the solution:", or a heading
such as "### Evaluation"): there a proof is quoted.

1. A *phrase score* follows the pack's own phrase, in which case, emphasis, line breaks and
  auxiliary words are free.
2. A *labeled score* follows, at the beginning of a sentence, words that do nothing but grade:
  "**Score:** 1", "I rate this proof 0.5", "My final grade is \\boxed{0}". Any other word, a hedge
  or a range, and it is none.
3. A *closing score* is a box by itself at the very end, where an intro or the words before it judge
  a solution.

Phrase scores decide; without any the labeled ones, from the first that is called final on; without
any the closing one. All of them, and every labeled or closing score behind the first, must agree:
two different scores are unreadable, for nobody can tell which of them a proof has planted. So is a
score that is none of 0, 0.5 and 1, and a phrase that is followed by none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from proofloop.method.prompts.phrases import Phrases
from proofloop.method.prompts.reading.fences import MAX_FENCES, blank_fences, unwrap
from proofloop.method.prompts.reading.grading_words import (
    FINAL,
    GRADING,
    JUDGED,
    JUDGEMENTS,
    OTHER_LANGUAGES,
    QUOTES,
    SCORING,
    SOLVING,
)
from proofloop.method.prompts.reading.headings import find_headings
from proofloop.method.prompts.reading.rules import (
    REPEATS,
    Asked,
    Rules,
    Unreadable,
    between,
    no_legal_score,
    one_heading,
    two_scores,
)
from proofloop.method.prompts.reading.scores import BEGINS, ends_there, read_score
from proofloop.method.prompts.reading.soft import lower, soften
from proofloop.schema.records import Score

TAIL = 8_000
"""Characters at the end of an answer in which a labeled or closing score is looked for."""

SENTENCE = 200
"""Characters before and behind a word of grading that can belong to its sentence."""

QUOTED_WITHIN = 4_000
"""Characters before a score among which a quotation that holds it may have begun."""

MAX_HITS = 1_000
"""How often any word of a phrase stands in an answer that somebody reads."""

MAX_GRADINGS = 200
"""How many words of grading the end of an answer has at most, that somebody reads."""

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
class Statement:
    """A score that the answer states. `is_final`: its sentence calls it so."""

    shown: str
    score: Score | None
    is_number: bool = True
    is_final: bool = False


def _unwrapped(text: str) -> str:
    """The answer without tokens of the chat template, and without a fence or block quote around the
    whole of it.
    """
    text = unwrap(_without_tokens(text))
    if text.startswith(">") and text.count("\n>") == text.count("\n"):
        text = f"\n{text}".replace("\n> ", "\n").replace("\n>", "\n").strip()
    return text


def _without_tokens(text: str) -> str:
    """The text, without tokens of the chat template at its end. It is matched backwards: that is
    linear.
    """
    tokens = _TOKENS_BACKWARDS.match(text[::-1]) if text.endswith(_TOKENS) else None
    return text[: len(text) - tokens.end()] if tokens else text


def _visible(text: str) -> str:
    return _blank_quotes(blank_fences(text, _is_only_a_score))


def _blank_quotes(text: str) -> str:
    """The text with its block quotes overwritten by spaces; of one that holds the score alone only
    the marks are.
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
    text = soften(inside).strip(" \n`.")
    found = read_score(text, 0)
    return found is not None and found.score is not None and not text[found.end :].strip(" \n`.")


def _sections(visible: str, phrases: Phrases) -> tuple[slice, slice]:
    solution = one_heading(
        find_headings(visible, phrases.solution_heading), phrases.solution_heading
    )
    own = one_heading(find_headings(visible, phrases.self_heading), phrases.self_heading)
    return between(solution, own, phrases)


def _score(visible: str, asked: Asked) -> Score:
    text = _without_others(f"\n{lower(visible)}\n", asked)
    begun = _begin(text, asked.intro)
    said = text if begun is None else text[begun:]
    phrases, rest = _phrase_scores(said, asked.score)
    tail = soften(rest[-TAIL:])
    closing = _closing(tail, has_begun=begun is not None or asked.has_begun)
    return _agreed(_deciding(phrases, _labeled(tail), closing))


def _deciding(
    phrases: list[Statement], labeled: list[Statement], closing: list[Statement]
) -> list[Statement]:
    """The statements that must agree."""
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


def _agreed(statements: list[Statement]) -> Score:
    if not statements:
        raise Unreadable("no score found")
    last = statements[-1]
    for other in statements:
        if other.score != last.score:
            raise two_scores(other.shown, last.shown)
    if last.score is None:
        raise no_legal_score(last.shown)
    return last.score


# -- phrases
# --------------------------------------------------------------------------------------------------


@lru_cache
def _loose(phrase: str) -> tuple[str, re.Pattern[str]]:
    """The phrase's first word, and the phrase with any marks, spaces and line breaks between its
    words.
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
    """Where the word stands. Raises Unreadable for what repeats it without end."""
    place = text.find(word)
    for _ in range(MAX_HITS):
        if place < 0:
            return
        yield place
        place = text.find(word, place + len(word))
    if place >= 0:
        raise Unreadable(f"the answer repeats {word!r} more than {MAX_HITS} times", cause=REPEATS)


def _without_others(text: str, asked: Asked) -> str:
    """The text without the scores that another role's phrase announces: they are quoted."""
    for phrase in asked.others:
        if _loose(phrase) != _loose(asked.score):
            pieces, done = [], 0
            for found in _find_phrase(text, phrase):
                score = _QUOTED_SCORE.match(text, found.end())
                pieces.append(text[done : found.start()])
                done = score.end() if score else found.end()
            text = "".join([*pieces, text[done:]])
    return text


def _begin(text: str, intro: str) -> int | None:
    """Where the evaluation begins: behind the first intro or heading of an evaluation; None if
    nothing says so.
    """
    intros = (
        (match.end() for match in _find_phrase(text, intro) if _is_said(text, match.start()))
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


def _phrase_scores(text: str, phrase: str) -> tuple[list[Statement], str]:
    """The scores that the phrase announces, and the text behind the last. Raises Unreadable if that
    has none.
    """
    said = [match for match in _find_phrase(text, phrase) if _is_said(text, match.start())]
    scores = [_announced(text, match.end()) for match in said]
    if not said:
        return [], text
    if scores[-1] is None:
        raise Unreadable(f"no score follows {phrase!r}")
    said_before = [
        score for score in scores[:-1] if score is not None and score.is_number
    ]  # else the sample answer
    return [*said_before, scores[-1]], text[said[-1].end() :]


def _announced(text: str, start: int) -> Statement | None:
    copula = _COPULA.match(text, start)
    window = soften(text[copula.end() if copula else start :][:SENTENCE])
    gap = _GAP.match(window)
    place = gap.end() if gap else 0
    if _LIST_ITEM.match(window, place) and "\n" in window[:place]:
        return None
    return _statement(window, place)


def _statement(text: str, start: int, *, is_final: bool = False) -> Statement | None:
    """The score that begins at `start` of a soft text; None where it is only part of a sentence."""
    found = read_score(text, start)
    if found is None:
        return None
    ends = ends_there(text, found.end)
    if ends is None:
        return None
    return Statement(found.shown, found.score if ends else None, found.is_number, is_final)


# -- labels
# --------------------------------------------------------------------------------------------------


def _labeled(tail: str) -> list[Statement]:
    """The labeled scores of a soft text, in order."""
    found: dict[int, Statement] = {}
    for number, word in enumerate(_SCORING.finditer(tail)):
        if number == MAX_GRADINGS:
            raise Unreadable(f"the end of the answer has more than {MAX_GRADINGS} words of grading")
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


def _graded(tail: str, start: int, place: int) -> Statement | None:
    """The score at `place` if its sentence, from `start` on, says nothing but that this is the
    score.
    """
    words = _WORD.findall(tail[start:place])
    is_other_line = "\n" in tail[start:place].strip("\n")
    if (
        not GRADING.issuperset(words)
        or re.search(r"\d|\\|[<>≤≥≈%]", tail[start:place])
        or not _is_said(tail, start)
    ):
        return None
    statement = _statement(tail, place, is_final=not FINAL.isdisjoint(words))
    if statement is not None and is_other_line and _rest(tail, place):
        return None
    return statement


def _rest(tail: str, place: int) -> str:
    """What stands behind the score at `place` on its line."""
    found = read_score(tail, place)
    end = found.end if found else place
    return tail[end : tail.find("\n", end)].strip(_DRESS)


def _sentence_start(text: str, place: int) -> int:
    """Where the sentence that `place` is in begins: on its own line."""
    low = max(0, place - SENTENCE)
    ends = [match.end() for match in _SENTENCE_END.finditer(text, low, place)]
    return ends[-1] if ends else low


def _is_said(text: str, place: int) -> bool:
    """Whether the sentence at `place` is the answer's own: not quoted, and nobody else's by the
    words before it.
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


def _closing(tail: str, *, has_begun: bool) -> list[Statement]:
    """The box that ends the text, after those before it that stand by themselves; [] if it may be
    no score.
    """
    boxes = [found.start() for found in _BOXED.finditer(tail)]
    if not boxes or not _ends_at(tail, boxes[-1]) or not _stands_alone(tail, boxes[-1]):
        return []
    if not (has_begun or _judges(tail[: boxes[-1]])) or not _is_said(tail, boxes[-1]):
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
    """Whether the box is no end of a sentence: the text before it has ended, or is a heading of
    grading.
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
    """Whether the text grades a solution, in a sentence about it, and does not solve the problem
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
