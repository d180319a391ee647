"""The findings of `proofloop doctor`, and the finding for a model's answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from proofloop.cli.doctor.questions import TrialAnswer
from proofloop.config.run_file import RunSpec
from proofloop.engine.base import ALL_IN_REASONING, Generation
from proofloop.schema.records import Verdict

SHOWN_CHARACTERS = 200
"""The length of the excerpt of an unreadable answer."""


@dataclass(frozen=True)
class Finding:
    """The result of one check. `hint` is the way out if the state is not ok."""

    what: str
    state: Literal["ok", "warning", "broken"]
    found: str
    hint: str = ""


def finding_of(answer: TrialAnswer, spec: RunSpec, wait_s: float) -> Finding:
    """The finding for a role's answer."""
    generation = answer.generation
    if generation is None or (answer.verdict is None and not generation.completion_tokens):
        if answer.error is not None:
            return Finding(answer.role, "broken", answer.error.problem, answer.error.hint)
        hint = "raise --wait, or find out why the server is slow"
        return Finding(answer.role, "broken", f"no answer within {wait_s:g} s", hint)
    if answer.verdict is None:
        return _unfinished(answer, generation, spec)
    return _finished(answer, generation, answer.verdict, spec, wait_s)


def _unfinished(answer: TrialAnswer, generation: Generation, spec: RunSpec) -> Finding:
    most = spec.sampling_of(answer.role).max_tokens
    longest_min = answer.seconds * most / generation.completion_tokens / 60
    found = (
        f"unfinished after {_cost(answer, generation)}; an answer of max_tokens = {most} would take"
        f" {longest_min:.0f} min"
    )
    hint = "raise --wait to check whether the answer is readable"
    return Finding(answer.role, "warning", found, hint)


def _finished(
    answer: TrialAnswer,
    generation: Generation,
    verdict: Verdict,
    spec: RunSpec,
    wait_s: float,
) -> Finding:
    cost = _cost(answer, generation)
    if verdict.outcome != "valid":
        beginning = _beginning(generation)
        found = f"{verdict.outcome}: {verdict.reason}: {cost}; the answer begins: {beginning}"
        if answer.unreadable > 1:
            return Finding(answer.role, "broken", found, _way_out(spec, answer))
        found += f"; no second answer within {wait_s:g} s"
        return Finding(answer.role, "warning", found, f"raise --wait; or {_way_out(spec, answer)}")
    found = f"readable, score {verdict.score:g}: {cost}"
    if not answer.unreadable:
        return Finding(answer.role, "ok", found)
    found += "; another answer was unreadable"
    return Finding(answer.role, "warning", found, _way_out(spec, answer))


def _cost(answer: TrialAnswer, generation: Generation) -> str:
    server = f", by {generation.served_by}" if generation.served_by else ""
    return (
        f"{generation.completion_tokens} tokens in {answer.seconds:.1f} s, for a prompt of"
        f" {generation.prompt_tokens} tokens{server}"
    )


def _beginning(answer: Generation) -> str:
    text = " ".join((answer.text or answer.reasoning).split())
    return repr(text[:SHOWN_CHARACTERS]) if text else "(empty)"


def _way_out(spec: RunSpec, answer: TrialAnswer) -> str:
    """The hint for an unreadable answer."""
    if answer.verdict is not None and answer.verdict.outcome == "truncated":
        return f"raise [sampling.{answer.role}] max_tokens, or make the model think less"
    generation = answer.generation
    if generation is not None and generation.reasoning and not generation.text.strip():
        return ALL_IN_REASONING
    ways = [
        "use a model that keeps to the format",
        "use a prompt pack that asks for the format in the model's own way"
        " (docs/how-to/answers.md)",
    ]
    if spec.how_to_read == "strict":
        ways.insert(0, 'set reading = "lenient" unless the answers train a model')
    return "; or ".join(ways)
