"""The grading form: parsed and checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import parse_qs

from proofloop.schema.records import LABELER, Score

SCORES: dict[str, Score] = {"1": 1.0, "0.5": 0.5, "0": 0.0}
MAX_NAME, MAX_COMMENT = 80, 10_000
MAX_BODY_BYTES = 4 * MAX_COMMENT * 3
"""The longest comment: a character has up to four bytes, and each byte is sent as three (`%F0`).
The other fields fit in because no real comment needs all of it.
"""


@dataclass(frozen=True)
class Form:
    """The form's fields. `score` is a key of SCORES, or empty; `problem` is the first error."""

    score: str = ""
    by: str = ""
    comment: str = ""
    problem: str = ""

    @classmethod
    def read(cls, body: bytes) -> Form:
        """Parse and check a form as a browser sends it."""
        try:
            sent = parse_qs(body.decode(), max_num_fields=10)
        except ValueError as error:
            return cls(problem=f"The form is unreadable: {error}")
        score, by, comment = (
            sent.get(name, [""])[0].strip() for name in ("score", "by", "comment")
        )
        form = cls(score, " ".join(by.split()), comment.replace("\r\n", "\n"))
        return replace(form, problem=_problem(form))


def _problem(form: Form) -> str:
    if form.score not in SCORES:
        return "Choose a score: 1, 0.5 or 0."
    if not form.by:
        return "Enter your name: it is stored with the score."
    if len(form.by) > MAX_NAME or not form.by.isprintable():
        return f"A name has at most {MAX_NAME} printable characters; this one has {len(form.by)}."
    if form.by == LABELER:
        return f"{LABELER!r} is the name of the labeling service. Enter your own name."
    if len(form.comment) > MAX_COMMENT:
        return f"The comment has {len(form.comment)} characters; the limit is {MAX_COMMENT}."
    return ""
