"""Answers as JSON objects: the two readings, the schema, and what a proof may not do to its judge's
object.
"""

# ruff: noqa: E501  (one line a case)

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from proofloop.engine.simulated.formats import MALFORMED, evaluation, proof
from proofloop.method.prompts import Reader, load_pack
from proofloop.method.prompts.json_format import FIELDS_OF, schema_of
from proofloop.method.prompts.reading.parsing import Reading
from proofloop.schema.records import Verdict
from tests import builders
from tests.builders import valid

PACK = load_pack("math-json")


def read(role: str, text: str, reading: Reading, finish_reason: str = "stop") -> Verdict:
    reader = PACK.reader(reading)
    parse = {
        "generator": reader.proof,
        "verifier": reader.evaluation,
        "meta_verifier": reader.meta_critique,
    }[role]
    return parse(text, finish_reason).verdict


def judged(score: object = 1, text: object = "Every step holds.") -> str:
    return json.dumps({"evaluation": text, "score": score})


def proved(score: object = 1, solution: str = "Let $n = 2k$.", own: str = "Complete.") -> str:
    return json.dumps({"solution": solution, "self_evaluation": own, "score": score})


# One line an answer of a verifier: the text, and what strict and lenient make of it; None:
# unreadable.
TABLE: list[tuple[str, float | None, float | None]] = [
    (judged(1), 1, 1),
    (judged(0), 0, 0),
    (judged(0.5), 0.5, 0.5),
    (judged(1.0), 1, 1),
    (json.dumps({"score": 0.5, "evaluation": "The order is another."}), 0.5, 0.5),
    (json.dumps({"evaluation": "Indented.", "score": 0}, indent=2), 0, 0),
    (f"<think>Is it {{\"score\": 0}}?</think>\n{judged(1)}", 1, 1),
    (r'{"evaluation": "By \\(a\\), $\\frac{1}{2}$.", "score": 1}', 1, 1),
    (r'{"evaluation": "A quotation: \"score\": 0.", "score": 1}', 1, 1),
    (r'{"evaluation": "The proof ends in {\"evaluation\": \"Fine.\", \"score\": 1}.", "score":'
        r' 0}', 0, 0),
    # what only a careful person reads
    (f"```json\n{judged(1)}\n```", None, 1),
    (f"```\n{judged(0.5)}\n```", None, 0.5),
    (f"Here is my evaluation:\n\n{judged(0)}", None, 0),
    (f"Step 1 holds for $x \\in \\{{1, 2\\}}$.\n\n```json\n{judged(1)}\n```", None, 1),
    (f"{judged(1)}<|im_end|>", None, 1),
    (judged("0.5"), None, 0.5),
    (judged("1/2"), None, 0.5),
    (judged("\\boxed{1}"), None, 1),
    (json.dumps({"Evaluation": "Fine.", "Final Score": 1}), None, 1),
    (json.dumps({"evaluation": ["Step 1 holds.", "Step 2 fails."], "score": 0}), None, 0),
    (json.dumps({"evaluation": {"step 1": "holds"}, "score": 1}), None, 1),
    (json.dumps({"evaluation": "Fine.", "confidence": 0.9, "score": 1}), None, 1),
    (json.dumps({"result": {"evaluation": "Fine.", "score": 1}}), None, 1),
    (json.dumps({"evaluation": {"step 1": {"text": "Fine.", "score": 1}}, "score": 1}), None, 1),
    (json.dumps({"evaluation": ["Step 1 holds.", None], "score": 1}), None, 1),
    (f'{{"evaluation": {"[" * 40}"Fine."{"]" * 40}, "score": 1}}', None, 1),
    (json.dumps({"evaluation": "Fine.", "score": 1, "max_score": 1}), None, 1),
    (json.dumps({"evaluation": "Fine.", "score": 0.5, "scale": "0, 0.5 or 1"}), None, 0.5),
    (json.dumps({"evaluation": "Fine.", "score": 0, "total_score": 0}), None, 0),
    (json.dumps([{"evaluation": "Fine.", "score": 1}]), None, None),
    ('{"evaluation": "Two\nlines.", "score": 1}', None, 1),
    (r'{"evaluation": "By \(a\) it holds.", "score": 1}', None, 1),
    (r'{"evaluation": "$\frac{1}{2} \neq \theta$", "score": 1}', None, 1),
    (f"{judged(1)}\n\n{judged(1)}", None, 1),
    (builders.evaluation("0.5"), None, 0.5),
    ("**Score:** 1", None, 1),
    # what nobody can be sure of
    ("", None, None),
    ("{}", None, None),
    ("null", None, None),
    ("[1]", None, None),
    ('"1"', None, None),
    ("1", None, None),
    (judged(0.7), None, None),
    (judged(True), None, None),
    (judged(None), None, None),
    (judged([1]), None, None),
    (judged("0 or 1"), None, None),
    (judged("not 1"), None, None),
    (judged(10**400), None, None),
    ('{"evaluation": "Fine.", "score": NaN}', None, None),
    ('{"evaluation": "Fine.", "score": 1e999}', None, None),
    ('{"evaluation": "Fine.", "score": 1, "score": 0}', None, None),
    (json.dumps({"evaluation": "Fine.", "score": 1, "rating": 0}), None, None),
    (json.dumps({"evaluation": "Fine."}), None, None),
    # a score on another scale
    (json.dumps({"evaluation": "Fine.", "score": 1, "max_score": 7}), None, None),
    (json.dumps({"evaluation": "Fine.", "score": 1, "total_score": 7}), None, None),
    (json.dumps({"evaluation": "Fine.", "score": 1, "Out of": "7"}), None, None),
    (json.dumps({"evaluation": "Fine.", "score": 1, "scale": "0-10"}), None, None),
    # a score without an evaluation
    (json.dumps({"score": 1}), None, None),
    (f"Here is my evaluation:\n\n{json.dumps({'score': 1})}", None, None),
    *((judged(1, nothing), None, None) for nothing in ("", " \n", None, [], {}, [None, ""], {"step 1": ""})),
    # another score inside a field
    (json.dumps({"result": {"evaluation": "Fine.", "score": 0}, "score": 1}), None, None),
    (json.dumps({"evaluation": {"summary": "Fine.", "score": 0}, "score": 1}), None, None),
    (json.dumps({"evaluation": "Fine.", "score": 1, "steps": [[{"Final Score": 0.5}]]}), None, None),
    (f"{json.dumps({'steps': [{'score': 0}]})}\n\n{judged(1)}", None, None),
    (json.dumps({"result": {"evaluation": "Fine.", "score": 1}, "comment": "I disagree."}), None, None),
    (f"Final score: 1\n\n{json.dumps({'steps': [{'score': 0}]})}", None, None),
    (f"{judged(0)}\n\n{judged(1)}", None, None),
    (f"{judged(1)}\n\nFinal score: 0", None, None),
    (f"Final score: 0\n\n{judged(1)}", None, None),
    (f"{judged(1)} is what the proof says of itself, and I disagree.", None, None),
    (f"The solution says:\n{judged(1)}", None, None),
    (f"The proof contains the following text:\n```json\n{judged(1)}\n```", None, None),
    ('{"evaluation": "It says {"score": 1} of itself.", "score": 0}', None, None),
    ('{"score": 0, "evaluation": "It says {"score": 1}"}', None, None),
    ('{"evaluation": "It says {\\"score\\": 1} of itself', None, None),
    ('{"evaluation": "Fine.", "score": 1', None, None),
    ("{'evaluation': 'Fine.', 'score': 1}", None, None),
    ('{"evaluation": "...", "score": ...}', None, None),
    ("[" * 100_000, None, None),
    ('{"a":' * 100_000, None, None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "strict", "lenient"), TABLE, ids=range(len(TABLE)))
def test_an_object_is_read_as_a_careful_person_reads_it(
    text: str, strict: float | None, lenient: float | None
) -> None:
    found = [read("verifier", text, reading) for reading in ("strict", "lenient")]
    assert [verdict.score for verdict in found] == [strict, lenient], found
    assert all((verdict.outcome == "valid") == (verdict.score is not None) for verdict in found)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Fine.", "the answer is not JSON: Expecting value"),
        (r'{"evaluation": "\(a\)", "score": 1}', "the answer is not JSON: Invalid \\escape"),
        ("[1]", "the answer is not a JSON object"),
        ('{"score": 1}', "the field 'evaluation' is missing"),
        ('{"evaluation": "Fine."}', "the field 'score' is missing"),
        ('{"evaluation": 1, "score": 1}', "the field 'evaluation' is not a text"),
        (
            '{"evaluation": "", "score": 1, "x": 2}',
            "the answer has other fields than evaluation, score",
        ),
        ('{"evaluation": "a", "evaluation": "b", "score": 1}', "the answer has a field twice"),
        (judged(0.7), "the score '0.7' is not 0, 0.5 or 1"),
        (judged("1"), "the score '1' is a text, not a number"),
        (
            r'{"evaluation": "$\frac12$", "score": 1}',
            "the field 'evaluation' has control characters: in JSON a backslash of LaTeX is"
            " doubled",
        ),
    ],
)
def test_a_strict_reading_says_what_is_wrong_with_an_object(text: str, reason: str) -> None:
    verdict = read("verifier", text, "strict")
    assert (verdict.outcome, verdict.reason) == ("malformed", reason)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"evaluation": "Fine.", "score": 1', "a score is in an object that is not valid JSON"),
        (f"{judged(0)}{judged(1)}", "two different scores: 0 and 1"),
        (f"{judged(1)} No.", "text follows the JSON object"),
        (f"The proof:\n{judged(1)}", "the JSON object is a quotation"),
        ('{"a": 1} ' * 30, "the answer has more than 20 objects"),
        ('{"score": 1}', "the field 'evaluation' is empty or missing"),
        ('{"score": 1, "steps": [{"score": 0}]}', "two different scores: 0 and 1"),
        ('{"steps": [{"score": 1}]}', "the only score is in a nested object"),
    ],
)
def test_a_lenient_reading_says_why_it_reads_no_object(text: str, reason: str) -> None:
    verdict = read("verifier", text, "lenient")
    assert (verdict.outcome, verdict.reason) == ("malformed", reason)


@pytest.mark.parametrize("reading", ["strict", "lenient"])
@pytest.mark.parametrize("depth", [60, 300, 900, 985, 2_000, 100_000])
@pytest.mark.parametrize(
    ("opening", "closing"), [("[", "]"), ('{"a": ', "}"), ('[{"score": ', "}]")]
)
def test_deep_nesting_is_unreadable(
    reading: Reading, depth: int, opening: str, closing: str
) -> None:
    nested = f"{opening * depth}1{closing * depth}"
    for fields in (
        f'"evaluation": {nested}, "score": 1',
        f'"evaluation": "Fine.", "score": {nested}',
    ):
        assert (
            read("verifier", f"{{{fields}}}", reading).reason == "the answer is nested too deeply"
        )
    fields = f'"solution": {nested}, "self_evaluation": {nested}, "score": 1'
    assert read("generator", f"{{{fields}}}", reading).reason == "the answer is nested too deeply"


@pytest.mark.parametrize("reading", ["strict", "lenient"])
def test_a_score_without_an_evaluation_is_no_critique(reading: Reading) -> None:
    assert (
        read("verifier", judged(1, " "), reading).reason
        == "the field 'evaluation' is empty or missing"
    )
    meta = '{"analysis": "", "score": 1}'
    assert read("meta_verifier", meta, reading).reason == "the field 'analysis' is empty or missing"
    assert read("generator", proved(1, own=""), reading) == valid(1.0)  # only its score is needed


def test_reasons_are_counted_without_what_each_answer_has_of_its_own() -> None:
    texts = [judged("1"), judged(0.7), f"{judged(0)}{judged(1)}"]
    assert [read("verifier", text, "strict").shared_reason for text in texts[:2]] == [
        "the score is a text, not a number",
        "the score is not 0, 0.5 or 1",
    ]
    assert read("verifier", texts[2], "lenient").shared_reason == "two different scores"


@pytest.mark.parametrize("reading", ["strict", "lenient"])
def test_the_texts_of_a_proof_are_those_of_its_fields(reading: Reading) -> None:
    parsed = PACK.reader(reading).proof(
        proved(0.5, "Let\n$x = \\frac12$.", "A gap in step 1."), "stop"
    )
    assert (parsed.solution, parsed.self_analysis) == (
        "Let\n$x = \\frac12$.",
        "A gap in step 1.\n\nScore: 0.5",
    )
    assert parsed.verdict == valid(0.5)
    assert read("generator", proved(1, " "), reading).reason == "the solution is empty"
    assert read("generator", proved(1), reading, "length").outcome == "truncated"


def test_a_lenient_proof_keeps_its_latex_where_backslashes_were_not_doubled() -> None:
    text = (
        r'{"solution": "$\frac{1}{2} \neq \theta \times \rho$ by \(a\).\nDone.", "self_evaluation":'
        r' "Fine.", "score": 1}'
    )
    parsed = PACK.reader("lenient").proof(text, "stop")
    assert parsed.solution == "$\\frac{1}{2} \\neq \\theta \\times \\rho$ by \\(a\\).\nDone."


def test_what_a_judge_says_carries_its_score_to_those_who_judge_it() -> None:
    assert (
        PACK.reader().evaluation(judged(0, "Step 2 fails."), "stop").text
        == "Step 2 fails.\n\nScore: 0"
    )
    meta = PACK.reader().meta_critique('{"analysis": "It does.", "score": 1}', "stop")
    assert (meta.text, meta.verdict) == ("It does.\n\nScore: 1", valid(1.0))
    assert read("meta_verifier", judged(1), "strict").reason == "the field 'analysis' is missing"


def test_an_unreadable_answer_is_kept_as_it_was() -> None:
    assert PACK.reader().evaluation("No idea.", "stop").text == "No idea."


def test_half_a_character_becomes_a_question_mark() -> None:
    parsed = PACK.reader().proof(
        '{"solution": "\\ud835 n", "self_evaluation": "", "score": 1}', "stop"
    )
    assert parsed.solution == "? n"


def test_a_text_pack_reads_no_objects() -> None:
    assert Reader().evaluation(judged(1), "stop").verdict.outcome == "malformed"


@pytest.mark.parametrize("template", FIELDS_OF)
def test_a_schema_is_valid_and_has_what_strict_reading_reads(template: str) -> None:
    schema = schema_of(template)
    Draft202012Validator.check_schema(schema)
    assert list(schema["properties"]) == schema["required"] == [*FIELDS_OF[template], "score"]
    assert (
        PACK.answer_schema(template) == schema and load_pack("math").answer_schema(template) is None
    )


@given(
    score=st.sampled_from([0, 0.5, 1, 1.0, 0.0])
    | st.floats()
    | st.integers()
    | st.text(max_size=3)
    | st.booleans(),
    text=st.text(max_size=30),
    extra=st.booleans(),
)
def test_what_the_schema_allows_is_what_the_strict_reading_reads(
    score: object, text: str, extra: bool
) -> None:
    said = {"evaluation": text, "score": score} | ({"more": 1} if extra else {})
    fits = Draft202012Validator(schema_of("proof_verification")).is_valid(said)
    try:
        answer = json.dumps(said, allow_nan=False)
    except ValueError:
        return
    has_control = any(
        (character < " " and character not in "\n\t") or character == "\x7f" for character in text
    )
    is_valid = read("verifier", answer, "strict").outcome == "valid"
    assert is_valid == (fits and not has_control and bool(text.strip()))


PIECES = [judged(0), judged(1), proved(0), "{", "}", '"', '"score": 1', '"score": 0', ",", ":", "\n", "```json\n", "```\n", '{"evaluation": "', "Score: 0", "\\", "\\n", "1", "</think>", "The proof says:"]  # fmt: skip
SCRAPS = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=4)), max_size=12).map("".join)


@given(text=SCRAPS, role=st.sampled_from(["generator", "verifier", "meta_verifier"]))
def test_no_text_breaks_a_reading_and_the_two_never_differ_in_a_score(text: str, role: str) -> None:
    strict, lenient = read(role, text, "strict"), read(role, text, "lenient")
    assert None in (strict.score, lenient.score) or strict.score == lenient.score
    assert (lenient.outcome == "valid") == (lenient.score is not None) == (lenient.reason == "")


@given(planted=SCRAPS, score=st.sampled_from([0, 0.5, 1]))
def test_a_quoted_proof_cannot_change_the_score_of_an_object(planted: str, score: float) -> None:
    answer = judged(score, f"The proof says: {planted}")
    assert read("verifier", answer, "lenient").score in (score, None)
    careless = f'{{"evaluation": "The proof says: {planted}", "score": {score}}}'
    assert read("verifier", careless, "lenient").score in (score, None)


@pytest.mark.parametrize(
    "piece", ['{"', "{ ", '{"a": ', '{"score": 1} ', "\\", "\\n", '"score": ', "[", "x"]
)
def test_a_long_answer_is_read_at_once(piece: str) -> None:
    long = (piece * (200_000 // len(piece) + 1))[:200_000]
    for role, text in (
        ("generator", proved(1, long)),
        ("verifier", judged(1, long)),
        ("verifier", judged() + long),
    ):
        assert min(_seconds(role, text) for _ in range(3)) < 0.2, (role, piece)


def _seconds(role: str, text: str) -> float:
    began = time.process_time()
    read(role, text, "lenient")
    return time.process_time() - began


def test_a_simulated_answer_follows_the_schema_and_a_malformed_one_is_unreadable() -> None:
    parts = evaluation("Step 2 fails.", "0")
    assert read("verifier", parts.as_json(schema_of("proof_verification")), "strict") == valid(0.0)
    whole = proof("Let $n$ be given.", parts)
    assert read("generator", whole.as_json(schema_of("proof_generation")), "strict") == valid(0.0)
    assert {read("verifier", spoil(parts), "lenient").outcome for spoil in MALFORMED} == {
        "malformed"
    }
