"""Reads the three kinds of answers. Model output is untrusted: nothing here raises on any text,
every pass is linear.

Only the final response counts: what follows the end of thinking. Two readings: `strict` is the
method's, and the one where answers earn rewards; `lenient` reads what a careful person would
(lenient.py says how, and never guesses). A pack that asks for JSON has its answers read as objects
(json_answers.py); the lenient reading takes one without an object as text.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from proofloop.method.prompts.json_format import (
    EVALUATION_FIELDS,
    META_FIELDS,
    PROOF_FIELDS,
    AnswerFormat,
)
from proofloop.method.prompts.phrases import METHOD, Phrases
from proofloop.method.prompts.reading.fences import MAX_FENCES, has_too_many_fences
from proofloop.method.prompts.reading.json_answers import Said, lenient_answer, strict_answer
from proofloop.method.prompts.reading.lenient import LENIENT
from proofloop.method.prompts.reading.rules import Asked, Rules, Unreadable, two_scores
from proofloop.method.prompts.reading.strict import STRICT
from proofloop.schema.records import Score, Verdict

Reading = Literal["strict", "lenient"]

MAX_ANSWER_CHARS = 4 << 20
"""A longer final response is no proof anyone will read; 128k tokens are about half a megabyte."""

THINKING = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
)
"""How models begin and end their thinking, where the server leaves it in the text."""


EMPTY = "the answer is empty"


class Truncated(Exception):
    """Why an answer has no end."""


@dataclass(frozen=True)
class ParsedEvaluation:
    """An analysis with its score: `text` is the whole final response, without surrounding white
    space.
    """

    text: str
    verdict: Verdict


@dataclass(frozen=True)
class ParsedProof:
    """A generator's answer: the solution, its own evaluation, and the verdict over both (score:
    s').
    """

    solution: str
    self_analysis: str
    verdict: Verdict


@dataclass(frozen=True)
class Reader:
    """Reads the answers to a pack's prompts, which ask for these phrases, or for JSON objects."""

    phrases: Phrases = METHOD
    reading: Reading = "strict"
    answers: AnswerFormat = "text"

    def proof(self, answer: str, finish_reason: str) -> ParsedProof:
        """A generator's answer (appendix A.1)."""
        if (
            self.answers == "json"
            and (parsed := self._json_proof(answer, finish_reason)) is not None
        ):
            return parsed
        parsed = _proof(answer, finish_reason, self._rules, self.phrases)
        if self._rules is STRICT or parsed.verdict.score is None:
            return parsed
        exactly = _proof(answer, finish_reason, STRICT, self.phrases)
        return replace(parsed, verdict=_undisputed(parsed.verdict, exactly.verdict))

    def evaluation(self, answer: str, finish_reason: str) -> ParsedEvaluation:
        """A verifier's answer (section 2.1.1)."""
        others = (self.phrases.meta_score,)
        asked = Asked(self.phrases.evaluation_intro, self.phrases.evaluation_score, others)
        return self._scored(answer, finish_reason, asked, EVALUATION_FIELDS)

    def meta_critique(self, answer: str, finish_reason: str) -> ParsedEvaluation:
        """A meta-verifier's answer (appendix A.3); it may quote the score of the evaluation that it
        rates.
        """
        others = (self.phrases.evaluation_score, self.phrases.self_score)
        asked = Asked(self.phrases.meta_intro, self.phrases.meta_score, others)
        return self._scored(answer, finish_reason, asked, META_FIELDS)

    @property
    def _rules(self) -> Rules:
        return STRICT if self.reading == "strict" else LENIENT

    def _scored(
        self, answer: str, finish_reason: str, asked: Asked, fields: tuple[str, ...]
    ) -> ParsedEvaluation:
        if (
            self.answers == "json"
            and (read := self._json_evaluation(answer, finish_reason, asked, fields)) is not None
        ):
            return read
        parsed = _evaluation(answer, finish_reason, self._rules, asked)
        if self._rules is STRICT or parsed.verdict.score is None:
            return parsed
        exactly = _evaluation(answer, finish_reason, STRICT, asked)
        return replace(parsed, verdict=_undisputed(parsed.verdict, exactly.verdict))

    def _json_proof(self, answer: str, finish_reason: str) -> ParsedProof | None:
        solution = own = ""
        try:
            text = self._rules.unwrapped(final_response(answer, finish_reason))
            said = self._said(text, PROOF_FIELDS, _own_evaluation(self.phrases))
            if said is None:
                return None
            solution, own = (said.texts[name] for name in PROOF_FIELDS)
            if not solution:
                raise Unreadable("the solution is empty")
            own = said.evaluation(PROOF_FIELDS[1])
            return ParsedProof(solution, own, valid(said.score))
        except (Unreadable, Truncated) as reason:
            return ParsedProof(solution, own, _verdict(reason))

    def _json_evaluation(
        self, answer: str, finish_reason: str, asked: Asked, fields: tuple[str, ...]
    ) -> ParsedEvaluation | None:
        text = ""
        try:
            text = self._rules.unwrapped(final_response(answer, finish_reason))
            said = self._said(text, fields, asked)
            if said is None:
                return None
            if not said.texts[fields[0]]:
                raise Unreadable(f"the field {fields[0]!r} is empty or missing")
            return ParsedEvaluation(said.evaluation(fields[0]), valid(said.score))
        except (Unreadable, Truncated) as reason:
            return ParsedEvaluation(text, _verdict(reason))

    def _said(self, text: str, fields: tuple[str, ...], asked: Asked) -> Said | None:
        """What the answer's object says; None where the lenient reading finds no object. Raises
        Unreadable.
        """
        if self._rules is STRICT:
            return strict_answer(text, fields)
        said, rest = lenient_answer(text, fields)
        if said is not None and (stated := _stated(rest, asked)) not in (None, said.score):
            raise two_scores(f"{said.score:g}", f"{stated:g}")
        return said


def _own_evaluation(phrases: Phrases) -> Asked:
    return Asked(phrases.self_intro, phrases.self_score, (phrases.meta_score,), has_begun=True)


def _stated(text: str, asked: Asked) -> Score | None:
    """The score that the text around an object states."""
    try:
        return LENIENT.score(LENIENT.visible(text), asked)
    except Unreadable:
        return None


def _proof(answer: str, finish_reason: str, rules: Rules, phrases: Phrases) -> ParsedProof:
    asked = _own_evaluation(phrases)
    solution = own = ""
    try:
        text = rules.unwrapped(final_response(answer, finish_reason))
        visible = rules.visible(text)
        solution_at, own_at = rules.sections(visible, phrases)
        solution, own = text[solution_at].strip(), text[own_at].strip()
        if not solution:
            raise Unreadable("the solution is empty")
        return ParsedProof(solution, own, valid(rules.score(visible[own_at], asked)))
    except (Unreadable, Truncated) as reason:
        return ParsedProof(solution, own, _verdict(reason))


def _evaluation(answer: str, finish_reason: str, rules: Rules, asked: Asked) -> ParsedEvaluation:
    text = ""
    try:
        text = rules.unwrapped(final_response(answer, finish_reason))
        return ParsedEvaluation(text, valid(rules.score(rules.visible(text), asked)))
    except (Unreadable, Truncated) as reason:
        return ParsedEvaluation(text, _verdict(reason))


def _undisputed(lenient: Verdict, strict: Verdict) -> Verdict:
    """The lenient verdict, unless the method's own reading finds another score: then nobody can be
    sure.
    """
    if strict.score is None or strict.score == lenient.score:
        return lenient
    return _verdict(two_scores(f"{lenient.score:g}", f"{strict.score:g}"))


def valid(score: Score) -> Verdict:
    return Verdict(outcome="valid", score=score)


def _verdict(reason: Unreadable | Truncated) -> Verdict:
    """A verdict without a score: the answer has no end, or is there and breaks the format."""
    if isinstance(reason, Truncated):
        return Verdict(outcome="truncated", reason=str(reason))
    return Verdict(outcome="malformed", reason=str(reason), cause=reason.cause)


def final_response(answer: str, finish_reason: str) -> str:
    """What follows the thinking, stripped. Raises Truncated, and Unreadable for what nobody would
    read.
    """
    if finish_reason == "length":
        raise Truncated("cut off at max_tokens")
    text = answer
    for _, end in THINKING:
        text = text.rpartition(end)[2]
    text = text.strip()
    if text.startswith(tuple(begin for begin, _ in THINKING)):
        raise Truncated("the thinking never ended")
    if not text:
        raise Unreadable(EMPTY)
    if len(text) > MAX_ANSWER_CHARS:
        raise Unreadable(f"the final response is longer than {MAX_ANSWER_CHARS} characters")
    if has_too_many_fences(text):
        raise Unreadable(f"the final response has more than {MAX_FENCES} lines of code fences")
    return text
