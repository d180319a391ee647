"""The numbers behind a plan: each from an option, else from the measured run, else a default."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from proofloop.config.run_file import RunSpec
from proofloop.errors import ConfigError
from proofloop.runs.planning.capacity import Habits, Observed, RoleCalls
from proofloop.runs.planning.estimate import GivenNumbers
from proofloop.schema.records import ModelRole

PROMPT_TOKENS = 2000.0
STREAMS = 64.0
ISSUE_SHARE = 0.5
"""The defaults of numbers that neither an option nor a run gives."""

ATTEMPTS = "attempts at a proof"
READABLE = "share of proofs in the right format"
CRITIQUED = "share of n critiques"
SEARCHED = "share of the proofs that a search may write"
JUDGED = "share of analyses with an issue"
ASSESSED = "share of m judgements"
ANSWER = "tokens of an answer"
PROMPT = "tokens of a prompt"
SECONDS = "seconds of a call"

NEVER_CALLED = RoleCalls(prompt_tokens=0, answer_tokens=0, call_seconds=0)


class MissingTime(ConfigError):
    """Neither an option nor the measured run gives the time of a role's calls."""


@dataclass
class Inputs:
    """Picks each number and records its source. `run`: the measured run. `seen`: the run's
    numbers.
    """

    run: str
    seen: Mapping[str, float]
    assumed: list[dict[str, Any]] = field(default_factory=list)

    def pick(
        self, what: str, given: float | None, option: str, default: float, source: str
    ) -> float:
        """The number `given` by `option`, else the run's, else the default from `source`."""
        if given is not None:
            value, source = given, option
        elif what in self.seen:
            value, source = self.seen[what], f"run {self.run}"
        else:
            value = default
        self.assumed.append({"assumed": what, "value": value, "by": source})
        return value

    def habits(self, spec: RunSpec, issue_share: float | None) -> Habits:
        most = float(spec.refinement.iterations)
        searched = 1.0
        attempts = min(most, self.pick(ATTEMPTS, None, "", most, "the budget"))
        readable = self.pick(READABLE, None, "", 1.0, "all")
        critiqued = self.pick(CRITIQUED, None, "", 1.0, "the budget")
        judged = self.pick(JUDGED, issue_share, "--issue-share", ISSUE_SHARE, "a guess")
        assessed = self.pick(ASSESSED, None, "", 1.0, "the budget")
        if spec.search.rounds:
            searched = self.pick(SEARCHED, None, "", 1.0, "the budget")
        return Habits(
            attempts=attempts,
            readable=readable,
            critiqued=critiqued,
            judged=judged,
            assessed=assessed,
            searched=searched,
        )

    def served(self, role: ModelRole, spec: RunSpec, given: GivenNumbers) -> RoleCalls:
        """The calls of a role and its replicas. A call takes 0 s if no source gives its time."""
        most = float(spec.sampling_of(role).max_tokens)
        tokens = given.answer_tokens.get(role)
        answer = self.pick(f"{role}: {ANSWER}", tokens, "--answer-tokens", most, "max_tokens")
        tokens = given.prompt_tokens.get(role)
        prompt = self.pick(f"{role}: {PROMPT}", tokens, "--prompt-tokens", PROMPT_TOKENS, "a guess")
        seconds = given.call_seconds.get(role)
        option = "--call-seconds"
        rate = given.tokens_per_second.get(role)
        if seconds is None and rate is not None:
            streams = given.streams.get(role, STREAMS)
            seconds = answer * streams / rate
            option = f"{streams:g} streams at {rate:g} tokens/s"
        seconds = self.pick(f"{role}: {SECONDS}", seconds, option, 0.0, "unknown")
        return RoleCalls(prompt, answer, seconds, rate, int(given.gpus.get(role, 1)))


def check_times(
    roles: Iterable[ModelRole], served: Mapping[ModelRole, RoleCalls], run: str
) -> None:
    """Raises MissingTime for the first role whose calls have no time."""
    for role in roles:
        if served[role].call_seconds:
            continue
        hint = "give --tokens-per-second for your own model servers, or --call-seconds"
        if run:
            raise MissingTime(f"run {run} has no time for calls of the {role}", hint)
        raise MissingTime(
            f"the time of a call of the {role} is not known", f"{hint}, or --from RUN"
        )


def numbers_of(found: Observed) -> dict[str, float]:
    """The numbers of a measured run by name."""
    habits = found.habits
    numbers = {ATTEMPTS: habits.attempts, READABLE: habits.readable, JUDGED: habits.judged}
    if "verifier" in found.calls:
        numbers[CRITIQUED] = habits.critiqued
    if "meta_verifier" in found.calls:
        numbers[ASSESSED] = habits.assessed
    if found.has_searched:
        numbers[SEARCHED] = habits.searched
    for role, mean in found.calls.items():
        numbers[f"{role}: {ANSWER}"] = mean.completion_tokens
        numbers[f"{role}: {PROMPT}"] = mean.prompt_tokens
        numbers[f"{role}: {SECONDS}"] = mean.engine_seconds
    return numbers
