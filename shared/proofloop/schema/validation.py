"""Pydantic's validation errors in one form for all files, messages and records: `key = value: what
is wrong`.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError
from pydantic_core import ErrorDetails

HINT = "\nhint: "
"""In the message of a validator's ValueError, separates the problem from the way out."""

SHOWN_CHARACTERS = 80
"""The most characters of a value in an error."""


@dataclass(frozen=True)
class InvalidValue:
    """One invalid value.

    `kind`: pydantic's type of the error. `path`: the way to the value, a list item as
    `temperatures[0]`; empty if whole sections contradict each other. `hint`: the validator's own.
    """

    kind: str
    path: tuple[str, ...]
    value: object
    text: str
    hint: str = ""

    @property
    def shown(self) -> str:
        """` = VALUE`; empty for a missing value and for one that is not a single value."""
        if self.kind == "missing" or not isinstance(self.value, str | int | float | bool):
            return ""
        return f" = {self.value!r:.{SHOWN_CHARACTERS}}"

    def __str__(self) -> str:
        return f"{'.'.join(self.path) or 'value'}{self.shown}: {self.text}"


def first_problem(error: ValidationError) -> InvalidValue:
    """The first problem. Unknown keys come first: one is often a misspelt key that is missing."""
    return problem_of(min(error.errors(), key=lambda each: each["type"] != "extra_forbidden"))


def problem_of(details: ErrorDetails) -> InvalidValue:
    """One of pydantic's errors as a InvalidValue."""
    text, _, hint = details["msg"].removeprefix("Value error, ").partition(HINT)
    return InvalidValue(details["type"], _path(details["loc"]), details["input"], text, hint)


def _path(parts: tuple[int | str, ...]) -> tuple[str, ...]:
    names: list[str] = []
    for part in parts:
        if isinstance(part, int) and names:
            names[-1] += f"[{part}]"
        else:
            names.append(str(part))
    return tuple(names)
