"""The file of demonstrations of [fine_tuning]: prompts with the answers that a model is to learn.

A row is a chat whose last message is the answer, or the answer of a role. The prompt of a role's
answer is rendered by the run's prompt pack, and the answer must be readable by this pack.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field, ValidationError, model_validator

from proofloop.config.row_files import lower_names, read_rows
from proofloop.errors import ConfigError
from proofloop.method.prompts import Prompt, PromptPack
from proofloop.schema.records import ModelRole, Record, Verdict
from proofloop.schema.validation import HINT, first_problem

ROWS = (
    "a row has `messages`, or `role`, `question`, `answer` and, of a verifier, `solution`; of a"
    " meta-verifier, `solution` and `analysis`"
)


class Turn(Record):
    """One message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str = Field(min_length=1)


class Demonstration(Record):
    """A prompt and the answer to learn. `origin`: the row that it is from."""

    prompt: tuple[Turn, ...]
    answer: str
    origin: str


class ChatRow(Record):
    """A row with a chat. Only the last message is learned."""

    messages: tuple[Turn, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _ends_with_answer(self) -> ChatRow:
        last = self.messages[-1].role
        if last != "assistant":
            raise ValueError(
                f"the last message is of the {last}, not the assistant{HINT}end with the answer"
            )
        return self


class RoleRow(Record):
    """A row with the answer of a role. A generator's row with a solution and an analysis is a
    refinement of this solution.
    """

    role: ModelRole
    question: str = Field(min_length=1, validation_alias=AliasChoices("question", "problem"))
    solution: str | None = Field(
        None, min_length=1, validation_alias=AliasChoices("solution", "proof")
    )
    analysis: str | None = Field(None, min_length=1)
    answer: str = Field(min_length=1)


def read_demonstrations(file: Path, pack: PromptPack) -> Iterator[Demonstration]:
    """The rows of a file. Raises ConfigError that names the first bad row, or an empty file."""
    number = 0
    for number, row in enumerate(read_rows(file), 1):
        yield _read(row, f"row {number} of {file.name}", pack)
    if not number:
        raise ConfigError(f"{file} has no rows", f"give at least one: {ROWS}")


def _read(row: Any, origin: str, pack: PromptPack) -> Demonstration:
    row = lower_names(row) if isinstance(row, dict) else row
    kind = ChatRow if isinstance(row, dict) and "messages" in row else RoleRow
    try:
        found = kind.model_validate(row)
    except ValidationError as error:
        problem = first_problem(error)
        raise ConfigError(f"{origin}: {problem}", problem.hint or ROWS) from error
    if isinstance(found, RoleRow):
        return _of_role(found, origin, pack)
    *prompt, answer = found.messages
    return Demonstration(prompt=tuple(prompt), answer=answer.content, origin=origin)


def _of_role(row: RoleRow, origin: str, pack: PromptPack) -> Demonstration:
    prompt = _prompt(row, pack)
    if prompt is None:
        raise ConfigError(
            f"{origin}: a row of the {row.role} with"
            f" {'a' if row.solution else 'no'} solution and {'an' if row.analysis else 'no'}"
            " analysis",
            ROWS,
        )
    verdict = read_answer(row.role, row.answer, pack)
    if verdict.outcome != "valid":
        raise ConfigError(
            f"{origin}: the answer cannot be read as one of the {row.role}: {verdict.reason}",
            f"write it in the format of the prompt pack {pack.name!r}, or give `messages`",
        )
    turn = Turn(role="user", content=prompt.text)
    return Demonstration(prompt=(turn,), answer=row.answer, origin=origin)


def _prompt(row: RoleRow, pack: PromptPack) -> Prompt | None:
    """None if the row has other texts than its role needs."""
    match row.role, row.solution, row.analysis:
        case "generator", None, None:
            return pack.prove(row.question)
        case "generator", str(solution), str(analysis):
            return pack.refine(row.question, [(solution, [analysis])])
        case "verifier", str(solution), None:
            return pack.verify(row.question, solution)
        case "meta_verifier", str(solution), str(analysis):
            return pack.judge(row.question, solution, analysis)
    return None


def read_answer(role: ModelRole, answer: str, pack: PromptPack) -> Verdict:
    """The verdict of the pack's strict reader on a complete answer of a role."""
    return pack.reader("strict").verdict(role, answer, "stop")
