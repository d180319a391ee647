"""Parses the three kinds of answers. Model output is untrusted: `Reader` never raises, and every
pass is linear.

Only the final response after the reasoning counts. There are two readings: `strict` is the paper's,
for answers that earn rewards; `lenient` finds a score where a careful person would (see
lenient.py). If a pack asks for JSON, answers are parsed as objects (json_answers.py); the lenient
reading parses an answer without an object as text.
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
from proofloop.method.prompts.reading.fences import (
    MAX_FENCES,
    fence_before,
    has_too_many_fences,
    is_block_quoted,
)
from proofloop.method.prompts.reading.json_answers import JsonAnswer, lenient_answer, strict_answer
from proofloop.method.prompts.reading.lenient import LENIENT
from proofloop.method.prompts.reading.rules import ExpectedFormat, Rules, Unreadable, two_scores
from proofloop.method.prompts.reading.strict import STRICT
from proofloop.method.scales import score_of
from proofloop.schema.records import ModelRole, Verdict

Reading = Literal["strict", "lenient"]

MAX_ANSWER_CHARS = 4 << 20
"""The longest final response. 128k tokens are about half a megabyte."""

THINKING = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
)
"""The marks around a model's reasoning, if the server leaves it in the text."""


EMPTY = "the answer is empty"


class Truncated(Exception):
    """The reason why an answer is incomplete."""


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
    """Parses the answers to a pack's prompts, which ask for these phrases or for JSON objects.

    `full_marks`: of the points that verifiers give; 1: they give scores.
    """

    phrases: Phrases = METHOD
    reading: Reading = "strict"
    answers: AnswerFormat = "text"
    full_marks: int = 1

    def verdict(self, role: ModelRole, answer: str, finish_reason: str) -> Verdict:
        """The verdict on an answer of this role."""
        if role == "generator":
            return self.proof(answer, finish_reason).verdict
        read = self.evaluation if role == "verifier" else self.meta_critique
        return read(answer, finish_reason).verdict

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
        return replace(parsed, verdict=_confirmed(parsed.verdict, exactly.verdict))

    def evaluation(self, answer: str, finish_reason: str) -> ParsedEvaluation:
        """A verifier's answer (section 2.1.1)."""
        expected = ExpectedFormat(
            self.phrases.evaluation_intro,
            self.phrases.evaluation_score,
            full_marks=self.full_marks,
            others=(self.phrases.meta_score,),
        )
        return self._scored(answer, finish_reason, expected, EVALUATION_FIELDS)

    def meta_critique(self, answer: str, finish_reason: str) -> ParsedEvaluation:
        """A meta-verifier's answer (appendix A.3); it may quote the score of the evaluation that it
        rates.
        """
        others = (self.phrases.evaluation_score, self.phrases.self_score)
        expected = ExpectedFormat(self.phrases.meta_intro, self.phrases.meta_score, others=others)
        return self._scored(answer, finish_reason, expected, META_FIELDS)

    @property
    def _rules(self) -> Rules:
        return STRICT if self.reading == "strict" else LENIENT

    def _scored(
        self, answer: str, finish_reason: str, expected: ExpectedFormat, fields: tuple[str, ...]
    ) -> ParsedEvaluation:
        if (
            self.answers == "json"
            and (read := self._json_evaluation(answer, finish_reason, expected, fields)) is not None
        ):
            return read
        parsed = _evaluation(answer, finish_reason, self._rules, expected)
        if self._rules is STRICT or parsed.verdict.score is None:
            return parsed
        exactly = _evaluation(answer, finish_reason, STRICT, expected)
        return replace(parsed, verdict=_confirmed(parsed.verdict, exactly.verdict))

    def _json_proof(self, answer: str, finish_reason: str) -> ParsedProof | None:
        solution = own = ""
        try:
            text = self._rules.unwrapped(final_response(answer, finish_reason))
            json_answer = self._json_answer(text, PROOF_FIELDS, _own_evaluation(self.phrases))
            if json_answer is None:
                return None
            solution, own = (json_answer.texts[name] for name in PROOF_FIELDS)
            if not solution:
                raise Unreadable("the solution is empty")
            own = json_answer.evaluation(PROOF_FIELDS[1])
            return ParsedProof(solution, own, valid(json_answer.score))
        except (Unreadable, Truncated) as reason:
            return ParsedProof(solution, own, _verdict(reason))

    def _json_evaluation(
        self, answer: str, finish_reason: str, expected: ExpectedFormat, fields: tuple[str, ...]
    ) -> ParsedEvaluation | None:
        text = ""
        try:
            text = self._rules.unwrapped(final_response(answer, finish_reason))
            json_answer = self._json_answer(text, fields, expected)
            if json_answer is None:
                return None
            if not json_answer.texts[fields[0]]:
                raise Unreadable(f"the field {fields[0]!r} is empty or missing")
            return ParsedEvaluation(json_answer.evaluation(fields[0]), valid(json_answer.score))
        except (Unreadable, Truncated) as reason:
            return ParsedEvaluation(text, _verdict(reason))

    def _json_answer(
        self, text: str, fields: tuple[str, ...], expected: ExpectedFormat
    ) -> JsonAnswer | None:
        """The fields of the answer's object; None if the lenient reading finds no object. Raises
        Unreadable.
        """
        if self._rules is STRICT:
            return strict_answer(text, fields)
        json_answer, rest = lenient_answer(text, fields)
        if json_answer is not None and (stated := _stated(rest, expected)) not in (
            None,
            json_answer.score,
        ):
            raise two_scores(f"{json_answer.score:g}", f"{stated:g}")
        return json_answer


def _own_evaluation(phrases: Phrases) -> ExpectedFormat:
    return ExpectedFormat(
        phrases.self_intro, phrases.self_score, others=(phrases.meta_score,), has_begun=True
    )


def _stated(text: str, expected: ExpectedFormat) -> float | None:
    """The score in the text around an object, if any."""
    try:
        return LENIENT.score(LENIENT.visible(text), expected)
    except Unreadable:
        return None


def _proof(answer: str, finish_reason: str, rules: Rules, phrases: Phrases) -> ParsedProof:
    expected = _own_evaluation(phrases)
    solution = own = ""
    try:
        text = rules.unwrapped(final_response(answer, finish_reason))
        visible = rules.visible(text)
        solution_at, own_at = rules.sections(visible, phrases)
        solution, own = text[solution_at].strip(), text[own_at].strip()
        if not solution:
            raise Unreadable("the solution is empty")
        return ParsedProof(solution, own, valid(rules.score(visible[own_at], expected)))
    except (Unreadable, Truncated) as reason:
        return ParsedProof(solution, own, _verdict(reason))


def _evaluation(
    answer: str, finish_reason: str, rules: Rules, expected: ExpectedFormat
) -> ParsedEvaluation:
    text = ""
    try:
        text = rules.unwrapped(final_response(answer, finish_reason))
        score = rules.score(rules.visible(text), expected)
        return ParsedEvaluation(text, valid(score, expected.full_marks))
    except (Unreadable, Truncated) as reason:
        return ParsedEvaluation(text, _verdict(reason))


def _confirmed(lenient: Verdict, strict: Verdict) -> Verdict:
    """The lenient verdict, or an unreadable one if the strict reading finds another score."""
    if strict.score is None or (strict.score, strict.share) == (lenient.score, lenient.share):
        return lenient
    return _verdict(two_scores(f"{lenient.score:g}", f"{strict.score:g}"))


def valid(score: float, full_marks: int = 1) -> Verdict:
    """The verdict with this score, or with these points of full marks."""
    if full_marks == 1:
        return Verdict(outcome="valid", score=score)
    share = score / full_marks
    return Verdict(outcome="valid", score=score_of(share), share=share)


def _verdict(reason: Unreadable | Truncated) -> Verdict:
    """A verdict without a score: the answer is truncated or malformed."""
    if isinstance(reason, Truncated):
        return Verdict(outcome="truncated", reason=str(reason))
    return Verdict(outcome="malformed", reason=str(reason), cause=reason.cause)


def final_response(answer: str, finish_reason: str) -> str:
    """The stripped text after the reasoning. Raises Truncated, and Unreadable for an empty or too
    long text.
    """
    if finish_reason == "length":
        raise Truncated("cut off at max_tokens")
    text = answer
    for _, end in THINKING:
        before, mark, text = text.rpartition(end)
        if mark and _is_quoted(f"{before}{mark}{text}", len(before)):
            raise Unreadable("the end of the reasoning is in a quotation")
    text = text.strip()
    if text.startswith(tuple(begin for begin, _ in THINKING)):
        raise Truncated("the reasoning never ended")
    if not text:
        raise Unreadable(EMPTY)
    if len(text) > MAX_ANSWER_CHARS:
        raise Unreadable(f"the final response is longer than {MAX_ANSWER_CHARS} characters")
    if has_too_many_fences(text):
        raise Unreadable(f"the final response has more than {MAX_FENCES} lines of code fences")
    return text


def _is_quoted(text: str, place: int) -> bool:
    """Whether a mark is in a closed fence or a block quote: a proof that holds the mark may be
    quoted, and a score that the proof plants after it is not the answer's.
    """
    return fence_before(text, place) is not None or is_block_quoted(text, place)
