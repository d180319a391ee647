"""The estimate of one run: calls, tokens, hours and money for its own problems, each as a range.

Without a measured run the low end is a guess and the high end the most that the run's budgets
allow: n critiques, m judgements of every analysis, answers of max_tokens. With one, both ends
follow from its means and the spread between its problems.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, stdev

from proofloop.config.given_files import given_cases
from proofloop.config.problem_file import problems_of
from proofloop.config.run_file import Prices, RunSpec
from proofloop.method.prompts import load_pack
from proofloop.runs.costs import HOUR_S, money
from proofloop.runs.figures import Z95
from proofloop.runs.planning.call_times import (
    OfRoles,
    one_after_another,
    rate_limited,
    side_by_side,
)
from proofloop.runs.planning.capacity import (
    Habits,
    Observed,
    RoleCalls,
    proofs_per_problem,
    work_of_a_proof,
)
from proofloop.runs.student import t95
from proofloop.schema.given import GivenCase
from proofloop.schema.records import MODEL_ROLES, ModelRole, Role

CHARACTERS_A_TOKEN = 4.0
"""Of English with formulas, roughly; only for prompts."""

SHORT_ANSWERS, FEW_CRITIQUES, FEW_ISSUES = 0.25, 0.5, 0.2
"""The low end where nothing was measured: of max_tokens, of n if a run stops early, of analyses
those with an issue.
"""

TOKENS_A_SECOND = (20.0, 100.0)
"""Of one stream, where nothing was measured."""

UNKNOWN_SPREAD = 1.0
"""The relative spread between problems where fewer than two were measured."""


@dataclass(frozen=True)
class Range:
    low: float
    high: float


@dataclass(frozen=True)
class RoleEstimate:
    """All calls of a role in the run, and their tokens."""

    role: ModelRole
    calls: Range
    prompt_tokens: Range
    answer_tokens: Range


@dataclass(frozen=True)
class RunEstimate:
    """The range of a run. `money` is None without prices. `rests_on`: the reasons for both ends, in
    words.
    """

    problems: int
    proofs: Range
    roles: tuple[RoleEstimate, ...]
    hours: Range
    money: Range | None
    rests_on: tuple[str, ...]

    @property
    def tokens(self) -> Range:
        return Range(*(sum(_of(role, end) for role in self.roles) for end in ("low", "high")))


@dataclass(frozen=True)
class _End:
    """One end of the range: the habits of proofs, the calls, and whether the roles' work overlaps
    entirely.
    """

    habits: Habits
    served: Mapping[ModelRole, RoleCalls]
    overlaps: bool
    factor: float = 1.0


@dataclass(frozen=True)
class _Totals:
    proofs: float
    calls: OfRoles
    prompt_tokens: OfRoles
    answer_tokens: OfRoles
    seconds: float
    money: float


NumberByRole = Mapping[str, float]


@dataclass(frozen=True)
class GivenNumbers:
    """The numbers that the options of `proofloop plan` give: by role, and the share of issues."""

    tokens_per_second: NumberByRole = field(default_factory=dict)
    streams: NumberByRole = field(default_factory=dict)
    gpus: NumberByRole = field(default_factory=dict)
    answer_tokens: NumberByRole = field(default_factory=dict)
    prompt_tokens: NumberByRole = field(default_factory=dict)
    call_seconds: NumberByRole = field(default_factory=dict)
    issue_share: float | None = None


NOTHING_GIVEN = GivenNumbers()


def estimate(
    spec: RunSpec,
    measured: Observed | None,
    habits: Habits,
    served: Mapping[ModelRole, RoleCalls],
    given: GivenNumbers = NOTHING_GIVEN,
    cases: Sequence[GivenCase] | None = None,
) -> RunEstimate:
    """The run's range. Raises ConfigError if its problems cannot be read.

    `habits` and `served` are the means of an earlier run if it was `measured`; else only the fields
    in `given` count. `cases`: the given proofs, if they do not come from the run's file.
    """
    if cases is None:
        cases = given_cases(spec)
        questions = [problem.question for problem in problems_of(spec)]
    else:
        questions = [case.question for case in cases]
    if measured:
        most = 1 + _spread(measured.tokens_by_problem, len(questions))
        ends = [_End(habits, served, True, 1 / most), _End(habits, served, False, most)]
        why = [_differing(len(measured.tokens_by_problem), len(questions), most)]
    else:
        ends = _guessed(spec, questions, cases, habits, given)
        why = _reasons(spec, cases, given)
    low, high = (_totals(spec, len(questions), end) for end in ends)
    if measured:
        why += _untimed(high, served)
    return RunEstimate(
        problems=len(questions),
        proofs=Range(low.proofs, high.proofs),
        roles=tuple(
            RoleEstimate(
                role,
                Range(low.calls[role], high.calls[role]),
                Range(low.prompt_tokens[role], high.prompt_tokens[role]),
                Range(low.answer_tokens[role], high.answer_tokens[role]),
            )
            for role in MODEL_ROLES
        ),
        hours=Range(low.seconds / HOUR_S, high.seconds / HOUR_S),
        money=None if spec.prices == Prices() else Range(low.money, high.money),
        rests_on=(
            *why,
            "one process with the calls at once of [flow] and the engine's max_concurrency, alone"
            " on it",
        ),
    )


def _untimed(totals: _Totals, served: Mapping[ModelRole, RoleCalls]) -> list[str]:
    """The roles whose calls have no time in the measured run, in words."""
    roles = [role for role in MODEL_ROLES if totals.calls[role] and not served[role].call_seconds]
    return (
        [f"the measured run has no time for calls of the {', '.join(roles)}: they count as 0 s"]
        if roles
        else []
    )


def _of(role: RoleEstimate, end: str) -> float:
    tokens: float = getattr(role.prompt_tokens, end) + getattr(role.answer_tokens, end)
    return tokens


def _spread(tokens: tuple[float, ...], problems: int) -> float:
    """The relative distance by which the total of so many problems may exceed their number times
    the measured mean.
    """
    mean = fmean(tokens)
    relative = stdev(tokens) / mean if len(tokens) > 1 and mean else UNKNOWN_SPREAD
    return _standard_errors(len(tokens)) * relative * math.sqrt(1 / problems + 1 / len(tokens))


def _standard_errors(measured: int) -> float:
    """Standard errors to both sides for 95 of 100 runs."""
    return t95(measured - 1) if measured > 1 else Z95  # of one problem the spread is a guess


def _differing(measured: int, problems: int, most: float) -> str:
    """The distance of the ends from the means, in words. The low end is as many times less as the
    high one is more.
    """
    ends = (
        f"{problems} problem{'s' if problems > 1 else ''}: {100 / most:.0f} to {100 * most:.0f} %"
        " of the mean"
    )
    if measured < 2:
        return f"one problem was measured: its spread is a guess; {ends}"
    return (
        f"means of {measured} measured problems, whose tokens differ; {ends} in 95 of 100 runs, if"
        " they are alike"
    )


def _guessed(
    spec: RunSpec,
    questions: list[str],
    cases: Sequence[GivenCase],
    habits: Habits,
    given: GivenNumbers,
) -> list[_End]:
    rule, issues = spec.labeling, given.issue_share
    few = Habits(
        attempts=1.0,
        critiqued=FEW_CRITIQUES if rule.stop_early and not _are_graded(cases) else 1.0,
        judged=FEW_ISSUES if issues is None else issues,
        assessed=(rule.m // 2 + 1) / rule.m if rule.stop_early and rule.m else 1.0,
        searched=0.0,
    )
    all_used = replace(habits, judged=1.0 if issues is None else issues)
    prompts = _prompt_tokens(spec, questions, cases)
    return [
        _End(
            few,
            _calls(spec, prompts, given, SHORT_ANSWERS, TOKENS_A_SECOND[1], is_high=False),
            True,
        ),
        _End(all_used, _calls(spec, prompts, given, 1.0, TOKENS_A_SECOND[0], is_high=True), False),
    ]


def _are_graded(cases: Sequence[GivenCase]) -> bool:
    """Whether all proofs are given with a grade: these get all n critiques."""
    return bool(cases) and all(case.given and case.given.score is not None for case in cases)


def _prompt_tokens(
    spec: RunSpec, questions: list[str], cases: Sequence[GivenCase]
) -> dict[ModelRole, float]:
    """The tokens of the mean question and its given texts, without the answers that a prompt
    quotes.
    """
    pack, question = load_pack(spec.prompts, spec.base), max(questions, key=len, default="")
    mean = fmean(len(each) for each in questions) - len(question) if questions else 0.0
    quoted = fmean(_given_characters(case) for case in cases) if cases else 0.0
    return {
        role: (len(pack.ask(role, question, "", "").text) + mean + quoted) / CHARACTERS_A_TOKEN
        for role in MODEL_ROLES
    }


def _given_characters(case: GivenCase) -> int:
    texts = (case.solution, case.analysis, case.reference, case.rubric, case.rival)
    return sum(len(text or "") for text in texts)


def _calls(
    spec: RunSpec,
    prompts: Mapping[ModelRole, float],
    given: GivenNumbers,
    share: float,
    speed: float,
    *,
    is_high: bool,
) -> dict[ModelRole, RoleCalls]:
    """The calls of each role, for answers of this share of max_tokens at this speed of a stream."""
    found: dict[ModelRole, RoleCalls] = {}
    quoted = 0.0
    for role in MODEL_ROLES:
        answer = given.answer_tokens.get(role, share * spec.sampling_of(role).max_tokens)
        prompt = given.prompt_tokens.get(role, prompts[role] + quoted)
        rate = given.tokens_per_second.get(role)
        streams = given.streams.get(role, 64.0)
        seconds = answer * streams / rate if rate else answer / speed
        found[role] = RoleCalls(prompt, answer, given.call_seconds.get(role, seconds), rate)
        if role in spec.asked_roles:
            quoted += answer if is_high else answer / 2  # thinking is not quoted
    return found


def _reasons(spec: RunSpec, cases: Sequence[GivenCase], given: GivenNumbers) -> list[str]:
    """The guesses of `_guessed` that no option replaces, in words."""
    low, high = ["a guess"], ["the most there can be if every answer is readable"]
    if len(given.answer_tokens) < len(MODEL_ROLES):
        low.append(f"answers of {100 * SHORT_ANSWERS:.0f} % of max_tokens")
        high.append("answers of max_tokens")
    few = spec.labeling.stop_early and not _are_graded(cases)
    low.append(f"{100 * FEW_CRITIQUES:.0f} % of n critiques" if few else "n critiques")
    high.append("n critiques, m judgements of every analysis")
    if given.issue_share is None:
        low.append(f"{100 * FEW_ISSUES:.0f} % of analyses with an issue")
    if spec.search.rounds:
        low.append("every search solved by its first proofs")
        high.append("every search to its last round")
    if not given.call_seconds and not given.tokens_per_second:
        slow, fast = TOKENS_A_SECOND
        low.append(f"{fast:g} tokens/s a stream")
        high.append(f"{slow:g} tokens/s a stream")
    return [f"low: {', '.join(low)}", f"high: {', '.join(high)}"]


def _totals(spec: RunSpec, problems: int, end: _End) -> _Totals:
    proofs = problems * proofs_per_problem(spec, end.habits)
    work = work_of_a_proof(end.habits, spec)
    usual = {role: end.factor * proofs * work[role].calls for role in MODEL_ROLES}
    prompt = {role: usual[role] * end.served[role].prompt_tokens for role in MODEL_ROLES}
    answer = {role: usual[role] * end.served[role].answer_tokens for role in MODEL_ROLES}
    calls = {
        role: min(max(usual[role], least * proofs), most * proofs)
        for role, (least, most) in _calls_a_proof(spec)
    }
    paid = sum(
        money(
            spec.prices.of(role),
            prompt[role],
            answer[role],
            calls[role] * end.served[role].call_seconds,
        )
        for role in MODEL_ROLES
    )
    return _Totals(proofs, calls, prompt, answer, _seconds(spec, end, calls, prompt, answer), paid)


def _calls_a_proof(spec: RunSpec) -> list[tuple[ModelRole, tuple[int, int]]]:
    """The lowest and the highest number of calls of each role for a proof."""
    rule, asked = spec.labeling, spec.asked_roles
    metas = rule.n * rule.m + rule.metas_of_self
    if spec.problems.given_file:
        metas = rule.metas_of_given if spec.problems.given_analyses else rule.n * rule.m
    found: list[tuple[ModelRole, tuple[int, int]]] = [
        ("generator", (1, spec.refinement.iterations)),
        ("verifier", (0, rule.n * (2 if spec.retries_unreadable else 1))),
        ("meta_verifier", (0, metas)),
    ]
    return [(role, span if role in asked else (0, 0)) for role, span in found]


def _seconds(spec: RunSpec, end: _End, calls: OfRoles, prompt: OfRoles, answer: OfRoles) -> float:
    """The duration: the work over the calls at once, the chain of calls of one proof, or the rate
    limits, whichever takes longest.
    """
    waits: dict[Role, float] = {
        role: work.waits for role, work in work_of_a_proof(end.habits, spec).items()
    }
    rounds = 1 + (spec.search.rounds if end.habits.searched else 0)
    chain = rounds * sum(
        end.served[role].call_seconds * min(1.0, waits[role]) for role in MODEL_ROLES
    )
    work = {role: calls[role] * end.served[role].call_seconds for role in MODEL_ROLES}
    busy = (
        max(chain, *side_by_side(spec, work))
        if end.overlaps
        else chain + one_after_another(spec, work)
    )
    return max(busy, *rate_limited(spec, calls, prompt, answer))
