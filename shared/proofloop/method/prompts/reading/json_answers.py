"""Reads the fields and the score of an answer that is a JSON object.

Strict: the answer is only the object, with exactly the fields of the schema.
Lenient: the object ends the answer, perhaps in a code fence or after other text; its fields may
have other names, and its LaTeX may lack the second backslash that JSON requires. The lenient
reading never guesses. It finds no score if a score field is outside the valid objects, if two
scores at any depth differ, if another field names full marks other than 1, or if the words before
the object introduce a quotation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from json import JSONDecoder
from typing import Any, NoReturn

from proofloop.method.prompts.json_format import SCORE, SCORES, score_line
from proofloop.method.prompts.reading.fences import fence_before, is_block_quoted
from proofloop.method.prompts.reading.normalize import lower, normalize
from proofloop.method.prompts.reading.quotations import introduces_quotation
from proofloop.method.prompts.reading.rules import Unreadable, illegal_score, two_scores
from proofloop.method.prompts.reading.scores import LONGEST_SHOWN, read_score
from proofloop.schema.records import Score

MAX_OBJECTS = 20
"""The most places where an object may begin. Each is parsed to its end."""

MAX_DEPTH = 50
"""The deepest nesting of objects and lists, far below Python's recursion limit."""

TOO_DEEP = "the answer is nested too deeply"

SCORE_NAMES = frozenset(
    [SCORE, "final_score", "overall_score", "total_score", "self_score", "rating", "grade"]
)
"""Names of the score field, in lower case with underscores."""

_SCALE = re.compile(
    r"(?:max|maximum|full|possible)_(?:score|grade|marks|points|rating)"
    r"|total_(?:marks|points)|(?:score|points)_(?:max|possible)|max|maximum|out_of|scale"
)
"""Names of a field beside the score that tells its maximum or its scale."""

_BEGINS = re.compile(r'\{(?=\s{0,50}")')
_SCORE_FIELD = re.compile(
    rf'\\?"\s?(?:{"|".join(sorted(SCORE_NAMES)).replace("_", "[ _-]?")})\s?\\?"\s{{0,20}}:',
    re.IGNORECASE,
)
_CLOSERS = re.compile(r"[\s`~.]*")
_FENCE_BEGINS = re.compile(r"(?:`{3,}|~{3,})\w{0,20}\s{0,20}\Z")
_DRESS = " \t\n*_`~#>"
_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_ESCAPE = re.compile(r'(?:\\["\\/])+|\\(?:u[0-9a-fA-F]{4}|[bfnrt][A-Za-z]{0,12}|)')
_LATEX = re.compile(
    r"\\(?:|[bfr].+|n(?:abla|eq|eg|ot|otin|mid|exists|leq|geq)"
    "|t(?:heta|o|imes|ext|extbf|extit|frac|an|au|op|riangle|ilde|ag|herefore))"
)
"""A command of LaTeX that begins like an escape, or the backslash of another command."""


@dataclass(frozen=True)
class JsonAnswer:
    """An answer: its text fields by name, and its score as the model wrote it."""

    texts: dict[str, str]
    shown: Any

    @property
    def score(self) -> Score:
        """Raises Unreadable for an invalid score."""
        if isinstance(self.shown, str):
            return _read_spelling(self.shown)
        if (
            isinstance(self.shown, int | float)
            and not isinstance(self.shown, bool)
            and self.shown in SCORES
        ):
            return float(self.shown)
        raise illegal_score(_show(self.shown))

    def evaluation(self, name: str) -> str:
        """A text field with the score below it."""
        return f"{self.texts[name]}\n\n{score_line(self.score)}".strip()


def strict_answer(text: str, names: Sequence[str]) -> JsonAnswer:
    """The fields of a text that is one object. Raises Unreadable."""
    try:
        body = _DECODER.decode(text)
    except ValueError as error:
        raise _not_json(error) from None
    except RecursionError:
        raise Unreadable(TOO_DEEP) from None
    if not isinstance(body, dict):
        raise Unreadable("the answer is not a JSON object")
    _fields(body)  # raises Unreadable for deep nesting
    for name in (*names, SCORE):
        if name not in body:
            raise Unreadable(f"the field {name!r} is missing")
    if len(body) > len(names) + 1:
        raise Unreadable(f"the answer has other fields than {', '.join((*names, SCORE))}")
    if isinstance(body[SCORE], str):
        raise Unreadable(
            f"the score {_show(body[SCORE])!r} is a text, not a number",
            cause="the score is a text, not a number",
        )
    return JsonAnswer({name: _strict_text(body[name], name) for name in names}, body[SCORE])


def lenient_answer(text: str, names: Sequence[str]) -> tuple[JsonAnswer | None, str]:
    """The fields of the last object with a score (None without one), and the text around all
    objects. Raises Unreadable.
    """
    text = _ESCAPE.sub(_repair_escape, text)
    around, scores, answer, done, begins = [], [], None, 0, [0]
    for start, end, body in _objects(text):
        around.append(text[done:start])
        begins.append(start)
        done = end
        scores += [JsonAnswer({}, value) for name, value in _fields(body) if _is_score(name)]
        if any(map(_is_score, body)):
            _check_scale(body)
            answer = _answer_of(body, names)
    rest = "\n".join([*around, text[done:]])
    if _SCORE_FIELD.search(rest):
        raise Unreadable("a score is in an object that is not valid JSON")
    if answer is None:
        if scores:
            raise Unreadable("the only score is in a nested object")
        return None, rest
    for other in scores:
        _check_same(other, answer)
    if _CLOSERS.fullmatch(text, done) is None:
        raise Unreadable("text follows the JSON object")
    if _is_quoted(text, begins[-1]):
        raise Unreadable("the JSON object is a quotation")
    before = _FENCE_BEGINS.sub("", around[-1]).rstrip(_DRESS)
    if introduces_quotation(lower(before[before.rfind("\n") + 1 :])):
        raise Unreadable("the JSON object is a quotation")
    return answer, rest


def _is_quoted(text: str, place: int) -> bool:
    """Whether the object at `place` is in a block quote, or in a fence with other words before."""
    inside = fence_before(text, place)
    is_in_quoted_fence = inside is not None and bool(inside.strip(_DRESS))
    return is_block_quoted(text, place) or is_in_quoted_fence


def _objects(text: str) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """The valid objects with their start and end. If an object's only field holds an object, the
    inner one counts.

    Raises Unreadable for too many objects, and for deep nesting.
    """
    begin, tries = _BEGINS.search(text), 0
    while begin is not None:
        tries += 1
        if tries > MAX_OBJECTS:
            raise Unreadable(f"the answer has more than {MAX_OBJECTS} objects")
        end = begin.end()
        try:
            body, end = _FORGIVING.raw_decode(text, begin.start())
        except ValueError:
            pass
        except RecursionError:
            raise Unreadable(TOO_DEEP) from None
        else:
            yield begin.start(), end, _unwrapped(body)
        begin = _BEGINS.search(text, end)


def _unwrapped(body: dict[str, Any]) -> dict[str, Any]:
    while len(body) == 1 and isinstance(inner := next(iter(body.values())), dict):
        body = inner
    return body


def _answer_of(body: dict[str, Any], names: Sequence[str]) -> JsonAnswer:
    by_name = {_plain(name): value for name, value in body.items()}
    *_, score = (value for name, value in body.items() if _is_score(name))
    return JsonAnswer({name: _lenient_text(by_name.get(name)) for name in names}, score)


def _fields(body: dict[str, Any]) -> list[tuple[str, Any]]:
    """All fields of the object and of the objects in it, outermost first. Raises Unreadable for
    deep nesting.
    """
    found: list[tuple[str, Any]] = []
    level: list[Any] = [body]
    for _ in range(MAX_DEPTH + 1):
        if not level:
            return found
        fields = [field for value in level if isinstance(value, dict) for field in value.items()]
        items = [item for value in level if isinstance(value, list) for item in value]
        found += fields
        level = [
            value
            for value in (*(value for _, value in fields), *items)
            if isinstance(value, dict | list)
        ]
    raise Unreadable(TOO_DEEP)


def _check_same(one: JsonAnswer, other: JsonAnswer) -> None:
    if one.score != other.score:
        raise two_scores(_show(one.shown), _show(other.shown))


def _check_scale(body: dict[str, Any]) -> None:
    """Raise Unreadable for a score on another scale, as in `"score": 1, "max_score": 7`."""
    for name, value in body.items():
        numbers = _NUMBER.findall(_show(value)) if _SCALE.fullmatch(_plain(name)) else []
        if numbers and float(numbers[-1]) != 1:
            raise Unreadable(
                f"the score is on another scale: {name[:LONGEST_SHOWN]!r} is {_show(value)!r}",
                cause="the score is on another scale",
            )


def _is_score(name: str) -> bool:
    return _plain(name) in SCORE_NAMES


def _plain(name: str) -> str:
    return re.sub(r"[\s-]", "_", name.strip().lower())


def _strict_text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise Unreadable(f"the field {name!r} is not a text")
    if _CONTROL.search(value):
        raise Unreadable(
            f"the field {name!r} has control characters: in JSON a backslash of LaTeX is doubled"
        )
    return _clean(value)


def _lenient_text(value: Any) -> str:
    """A text, or the texts of a list or object, one per line; "" for null."""
    if value is None:
        return ""
    if isinstance(value, dict):
        lines = ((name, _lenient_text(inner)) for name, inner in value.items())
        return _clean("\n".join(f"{name}: {line}" for name, line in lines if line))
    if isinstance(value, list):
        return _clean("\n".join(map(_lenient_text, value)))
    return _clean(_CONTROL.sub("", value if isinstance(value, str) else json.dumps(value)))


def _clean(text: str) -> str:
    """The text without halves of surrogate pairs, which JSON can hold and records cannot."""
    return text.encode("utf-8", "replace").decode().strip()


def _read_spelling(text: str) -> Score:
    soft = normalize(text[: LONGEST_SHOWN + 1]).strip(" \n`.")
    found = read_score(soft, 0)
    score = found.spelled.on(1) if found and found.spelled else None
    if found is None or score is None or soft[found.end :].strip():
        raise illegal_score(text[:LONGEST_SHOWN])
    return score


def _show(value: Any) -> str:
    return _clean(value if isinstance(value, str) else json.dumps(value))[:LONGEST_SHOWN]


def _repair_escape(escape: re.Match[str]) -> str:
    """The escape as valid JSON. A backslash of LaTeX is doubled: `\\frac`, `\\(`, `\\theta`."""
    return f"\\{escape[0]}" if _LATEX.fullmatch(escape[0]) else escape[0]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raises Unreadable for a repeated field: JSON parsers differ in which one counts."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise Unreadable("the answer has a field twice")
    return fields


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _not_json(error: ValueError) -> Unreadable:
    reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
    return Unreadable(f"the answer is not JSON: {reason[:60]}")


_DECODER = JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_number)
_FORGIVING = JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_number, strict=False)
