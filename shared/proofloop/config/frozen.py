"""Run and curriculum files in the store: reads them, and compares them with a newer version of the
file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from proofloop.config.explain import key_in_file
from proofloop.errors import CorruptObject
from proofloop.schema.validation import first_problem

S = TypeVar("S", bound=BaseModel)

SECRET = re.compile(r"(^|_)(key|token|secret|password|authorization|headers)$", re.IGNORECASE)
"""The names of fields whose values are never shown."""

WITHHELD = "(withheld)"


def read_frozen(body: bytes, kind: type[S], key: str) -> S:
    """Read a run or curriculum from the object of the store that has this key. Raises
    CorruptObject.

    Keys that a newer version of proofloop wrote are ignored, as in events.
    """
    try:
        return kind.model_validate_json(body, extra="ignore")
    except ValidationError as error:
        raise CorruptObject(
            f"{key} is not a {kind.__name__} that this version can read: {first_problem(error)}"
        ) from error


class Difference(NamedTuple):
    """A changed key. As text: `[flow] verifier = 8, was 4`; secrets are withheld."""

    path: tuple[str, ...]
    now: Any
    before: Any

    def __str__(self) -> str:
        name = self.path[-1]
        return (
            f"{key_in_file(self.path)} = {_shown(name, self.now)}, was {_shown(name, self.before)}"
        )


def first_difference(
    now: BaseModel, before: BaseModel, *, apart_from: Mapping[str, Any]
) -> Difference | None:
    """The first changed key. Changes of the keys in `apart_from` are ignored."""
    return next(differences(now, before, apart_from=apart_from), None)


def differences(
    now: BaseModel, before: BaseModel | None, *, apart_from: Mapping[str, Any] | None = None
) -> Iterator[Difference]:
    """All changed keys; without a version `before`, all keys that are set."""
    old = before.model_dump(mode="json", exclude=apart_from) if before else {}
    yield from _differences(now.model_dump(mode="json", exclude=apart_from), old, ())


def _differences(
    now: Mapping[str, Any], before: Mapping[str, Any], sections: tuple[str, ...]
) -> Iterator[Difference]:
    for name in {**now, **before}:
        new = now.get(name)
        old = before.get(name)
        if isinstance(new, Mapping) or isinstance(old, Mapping):
            yield from _differences(_table(new), _table(old), (*sections, name))
        elif new != old:
            yield Difference((*sections, name), new, old)


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "unset"
    return WITHHELD if SECRET.search(name) else json.dumps(value, ensure_ascii=False)
