"""What `doctor` found, and what a model's answer to a real question says of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from proofloop.cli.doctor.questions import TrialAnswer
from proofloop.config.run_file import RunSpec
from proofloop.engine.base import ALL_IN_REASONING, Generation

SHOWN_CHARACTERS = 200
"""Of an answer that cannot be read."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `hint` says what to do unless the state is ok."""

    what: str
    state: Literal["ok", "warning", "broken"]
    found: str
    hint: str = ""


def found_of(answer: TrialAnswer, spec: RunSpec, wait_s: float) -> Finding:
    """What a role's answer says of the run."""
    came, verdict, most = (
        answer.generation,
        answer.verdict,
        spec.sampling_of(answer.role).max_tokens,
    )
    if came is None or (verdict is None and not came.completion_tokens):
        if answer.error is None:
            hint = "give it more time by --wait, or see why the server is so slow"
            return Finding(answer.role, "broken", f"nothing came within {wait_s:g} s", hint)
        return Finding(answer.role, "broken", answer.error.problem, answer.error.hint)
    cost = (
        f"{came.completion_tokens} tokens in {answer.seconds:.1f} s, after a prompt of"
        f" {came.prompt_tokens}"
    )
    if came.served_by:
        cost += f", by {came.served_by}"
    if verdict is None:
        longest_min = answer.seconds * most / came.completion_tokens / 60
        found = f"not at its end after {cost}; max_tokens = {most} would take {longest_min:.0f} min"
        return Finding(
            answer.role, "warning", found, "raise --wait to see whether the answer can be read"
        )
    if verdict.outcome == "valid":
        found = f"readable, score {verdict.score:g}: {cost}"
        if not answer.unreadable:
            return Finding(answer.role, "ok", found)
        return Finding(
            answer.role,
            "warning",
            f"{found}; another answer could not be read",
            _way_out(spec, answer),
        )
    found = f"{verdict.outcome}: {verdict.reason}: {cost}; the answer begins: {_beginning(came)}"
    return Finding(answer.role, "broken", found, _way_out(spec, answer))


def _beginning(answer: Generation) -> str:
    text = " ".join((answer.text or answer.reasoning).split())
    return repr(text[:SHOWN_CHARACTERS]) if text else "nothing"


def _way_out(spec: RunSpec, answer: TrialAnswer) -> str:
    """What helps against answers that cannot be read."""
    if answer.verdict is not None and answer.verdict.outcome == "truncated":
        return f"raise max_tokens under [sampling.{answer.role}], or have the model think less"
    if (
        answer.generation is not None
        and answer.generation.reasoning
        and not answer.generation.text.strip()
    ):
        return ALL_IN_REASONING
    ways = [
        "use a model that keeps to the format",
        "a prompt pack that says it in the model's way (docs/reading.md)",
    ]
    if spec.how_to_read == "strict":
        ways.insert(0, 'set reading = "lenient" unless the answers train a model')
    return "; or ".join(ways)
