"""The grading form: parsed and checked."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qs

from proofloop.schema.records import Grade, Mark, Score

SCORES: dict[str, Score] = {"1": 1.0, "0.5": 0.5, "0": 0.0}
MAX_COMMENT, MAX_MARK, MAX_MARKS = 10_000, 1_000, 50
"""Together at most `access.MAX_BODY_BYTES`."""

_MARK = re.compile(r"(\d{1,6})(?:-(\d{1,6}))? (.+)", re.DOTALL)


@dataclass(frozen=True)
class Form:
    """The form's fields. `score` is a key of SCORES, or empty. `id` is new for each form that is
    shown. `problem` is the first error.
    """

    score: str = ""
    comment: str = ""
    marks: tuple[Mark, ...] = ()
    settles: bool = False
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    problem: str = ""

    @classmethod
    def read(cls, body: bytes) -> Form:
        """Parse and check a form as a browser sends it."""
        try:
            sent = parse_qs(body.decode(), max_num_fields=MAX_MARKS + 10)
        except ValueError as error:
            return cls(problem=f"The form is unreadable: {error}")
        score, comment, id = (
            sent.get(name, [""])[0].strip() for name in ("score", "comment", "form")
        )
        matches = [_MARK.fullmatch(mark.strip()) for mark in sent.get("mark", [])]
        marks = tuple(_mark(match) for match in matches if match)
        form = cls(score, comment.replace("\r\n", "\n"), marks, "settles" in sent, id[:64])
        return replace(form, problem=_problem(form, is_readable=None not in matches))

    @classmethod
    def again(cls, grade: Grade) -> Form:
        """The form that a person sent, to correct it."""
        score = next((text for text, score in SCORES.items() if score == grade.score), "")
        return cls(score, grade.comment, grade.marks)


def _mark(match: re.Match[str]) -> Mark:
    first = max(1, int(match[1]))
    return Mark(first=first, last=max(first, int(match[2] or first)), comment=match[3].strip())


def _problem(form: Form, *, is_readable: bool) -> str:
    if form.score not in SCORES:
        return "Choose a score: 1, 0.5 or 0."
    if len(form.comment) > MAX_COMMENT:
        return f"The comment has {len(form.comment)} characters; the limit is {MAX_COMMENT}."
    if not is_readable:
        return "A mark is unreadable: it has lines and a comment, as `3-4 why?`."
    longest = max((len(mark.comment) for mark in form.marks), default=0)
    if longest > MAX_MARK or len(form.marks) > MAX_MARKS:
        return f"At most {MAX_MARKS} marks of {MAX_MARK} characters each can be saved."
    return ""
