"""The one form: what a grader sends, checked once, here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import parse_qs

from proofloop.schema.records import LABELER, Score

SCORES: dict[str, Score] = {"1": 1.0, "0.5": 0.5, "0": 0.0}
MAX_NAME, MAX_COMMENT = 80, 10_000
MAX_BODY_BYTES = 4 * MAX_COMMENT * 3
"""Four bytes a character at most, each sent as three; so much for the comment leaves room for the
rest.
"""


@dataclass(frozen=True)
class Form:
    """What the form holds; `score` is a key of SCORES, or empty."""

    score: str = ""
    by: str = ""
    comment: str = ""
    problem: str = ""

    @classmethod
    def read(cls, body: bytes) -> Form:
        """What was sent, with the first problem there is with it."""
        try:
            sent = parse_qs(body.decode(), max_num_fields=10)
        except ValueError as error:
            return cls(problem=f"The form could not be read: {error}")
        score, by, comment = (
            sent.get(name, [""])[0].strip() for name in ("score", "by", "comment")
        )
        form = cls(score, " ".join(by.split()), comment.replace("\r\n", "\n"))
        return replace(form, problem=_problem(form))


def _problem(form: Form) -> str:
    if form.score not in SCORES:
        return "Choose a score: 1, 0.5 or 0."
    if not form.by:
        return "Give your name: it stands beside the score from now on."
    if len(form.by) > MAX_NAME or not form.by.isprintable():
        return f"A name has at most {MAX_NAME} printable characters; this one has {len(form.by)}."
    if form.by == LABELER:
        return f"{LABELER!r} is the service that labels. Give your own name."
    if len(form.comment) > MAX_COMMENT:
        return f"The comment has {len(form.comment)} characters; {MAX_COMMENT} are the most."
    return ""
