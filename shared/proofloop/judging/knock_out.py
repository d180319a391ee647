"""A knock-out among the accepted proofs of each problem: a judge compares them in pairs.

The comparisons are a run of given proofs, each beside its rival, so they are stored, resumed and
priced like all calls. A stored comparison is found by its two proofs and is never made again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from proofloop.config.run_file import RunSpec
from proofloop.config.run_file.labeling import Labeling
from proofloop.errors import ConfigError
from proofloop.judging.rows import JudgedProof
from proofloop.method.acceptance import mean
from proofloop.method.prompts import load_pack
from proofloop.method.prompts.loading import pack_names
from proofloop.runs.figures import Clusters, Figure
from proofloop.runs.given import cases_of
from proofloop.runs.labels import find_label
from proofloop.schema import keys
from proofloop.schema.given import GivenCase
from proofloop.schema.ids import case_id, problem_of, proof_id
from proofloop.schema.records import Given, Problem, Proof, Record, Score
from proofloop.store import Store, get_record

ENDING = "-knock-out"

Pair = tuple[JudgedProof, JudgedProof]
"""A proof, and the one with the lower mean score, or behind it in the file."""


@dataclass(frozen=True)
class Match:
    """Two comparisons of a pair, one in each order. Each score is that of the proof shown first:
    1 if it is better, 0 if the other one is; None if the answer was unreadable.
    """

    stronger: JudgedProof
    weaker: JudgedProof
    scores: tuple[Score | None, Score | None]

    @property
    def loser(self) -> JudgedProof:
        """Between equals the lower mean score loses. An unreadable comparison favors neither."""
        forward, backward = (0.5 if score is None else score for score in self.scores)
        return self.stronger if forward < backward else self.weaker

    @property
    def is_contradictory(self) -> bool:
        """Whether the place of a proof decided, not its content."""
        return self.scores in ((0.0, 0.0), (1.0, 1.0))


class KnockOut(Record):
    """What choosing one accepted proof of each problem by a knock-out changes.

    The figures `..._wrong` are over problems with an accepted proof: how often any accepted proof,
    one with the highest mean score, and the winner is wrong. `false_accept_rate_before` is the
    share of wrong proofs that are accepted, `..._after` the share of those that win;
    `contradictory` is the share of matches whose two orders contradict each other.
    """

    run_id: str
    matches: int
    tokens: float
    money: float
    figures: Mapping[str, Figure]


def comparing_spec(spec: RunSpec, pack: str) -> RunSpec:
    """The run that compares the accepted proofs of a judging run. Raises ConfigError for a pack
    whose verifier sees one proof only.
    """
    prompts = pack if pack in pack_names() else str(Path(pack).absolute())
    if "rival" not in load_pack(prompts).aids:
        raise ConfigError(
            f"prompt pack {pack!r} compares no proofs: its proof_verification.txt lacks {{rival}}",
            "name `math-pairwise`, or a pack with {proof} and {rival}",
        )
    labeling = Labeling(n=1, m=0, k=1, rule="majority", stop_early=False)
    name = f"{spec.name[: 100 - len(ENDING)]}{ENDING}"
    return spec.model_copy(update={"name": name, "prompts": prompts, "labeling": labeling})


def most_comparisons(cases: Sequence[GivenCase]) -> list[GivenCase]:
    """The comparisons if all proofs are accepted: all but one proof of each problem must lose."""
    problems: dict[str, list[GivenCase]] = defaultdict(list)
    for case in cases:
        if case.graded is not None:
            problems[case.graded.problem].append(case)
    return [
        case.model_copy(update={"rival": some[0].solution})
        for some in problems.values()
        for case in some[1:]
        for _ in range(2)
    ]


Play = Callable[[Sequence[Pair]], Sequence[Match]]


def knock_out(rows: Sequence[JudgedProof], play: Play) -> tuple[list[JudgedProof], list[Match]]:
    """The winner of each problem with an accepted proof, and all matches."""
    standing = [_ranked(some) for some in _accepted(rows).values()]
    matches: list[Match] = []
    while pairs := [pair for some in standing for pair in _pairs(some)]:
        played = play(pairs)
        lost = {match.loser.proof for match in played}
        standing = [[row for row in some if row.proof not in lost] for some in standing]
        matches += played
    return [some[0] for some in standing], matches


def _accepted(rows: Sequence[JudgedProof]) -> dict[str, list[JudgedProof]]:
    """The proofs that the run's rule accepts, by problem."""
    found: dict[str, list[JudgedProof]] = defaultdict(list)
    for row in rows:
        if row.score == 1.0:
            found[row.problem].append(row)
    return found


def _ranked(rows: Sequence[JudgedProof]) -> list[JudgedProof]:
    return sorted(rows, key=lambda row: -_mean(row))


def _mean(row: JudgedProof) -> float:
    return mean(row.judgements) or 0.0


def _pairs(ranked: Sequence[JudgedProof]) -> list[Pair]:
    """The strongest proof meets the weakest. If their number is odd, the strongest waits."""
    playing = ranked[len(ranked) % 2 :]
    half = len(playing) // 2
    return list(zip(playing[:half], reversed(playing[half:]), strict=True))


class Comparisons:
    """The comparisons among a judging run's proofs. `drive` runs the comparing run with these cases
    to its end.
    """

    def __init__(
        self, store: Store, judged: str, name: str, drive: Callable[[Sequence[GivenCase]], object]
    ) -> None:
        self._store, self._judged, self._name, self._drive = store, judged, name, drive

    def play(self, pairs: Sequence[Pair]) -> list[Match]:
        """Compare the proofs of each pair in both orders."""
        orders = [order for one, other in pairs for order in ((one, other), (other, one))]
        cases = list(cases_of(self._store, self._name))
        stored = {_origin(case) for case in cases}
        cases += [self._case(*order) for order in orders if _versus(*order) not in stored]
        self._drive(cases)
        scores = dict(self._scores(cases))
        return [
            Match(one, other, (scores[_versus(one, other)], scores[_versus(other, one)]))
            for one, other in pairs
        ]

    def _case(self, first: JudgedProof, second: JudgedProof) -> GivenCase:
        shown, rival = (
            get_record(self._store, keys.proof(self._judged, row.proof), Proof)
            for row in (first, second)
        )
        problem = keys.problem(self._judged, problem_of(first.proof))
        asked = get_record(self._store, problem, Problem)
        return GivenCase(
            question=asked.question,
            solution=shown.solution,
            given=Given(origin=_versus(first, second)),
            reference=asked.reference,
            rubric=asked.rubric,
            rival=rival.solution,
        )

    def _scores(self, cases: Sequence[GivenCase]) -> Iterator[tuple[str, Score | None]]:
        for number, case in enumerate(cases):
            label = find_label(self._store, self._name, proof_id(case_id(number), 0))
            yield _origin(case), label.score if label else None


def _versus(first: JudgedProof, second: JudgedProof) -> str:
    return f"{first.proof} against {second.proof}"


def _origin(case: GivenCase) -> str:
    return case.given.origin if case.given else ""


def knock_out_figures(
    rows: Sequence[JudgedProof], winners: Sequence[JudgedProof], matches: Sequence[Match]
) -> dict[str, Figure]:
    """The figures before and after; KnockOut explains them."""
    won = {row.proof for row in winners}
    found = {name: Clusters() for name in ("any_wrong", "highest_mean_wrong", "winner_wrong")}
    for problem, some in _accepted(rows).items():
        best = max(map(_mean, some))
        found["any_wrong"].add(problem, _wrong(some))
        found["highest_mean_wrong"].add(problem, _wrong([r for r in some if _mean(r) == best]))
        found["winner_wrong"].add(problem, _wrong([row for row in some if row.proof in won]))
    names = ("false_accept_rate_before", "false_accept_rate_after", "contradictory")
    found |= {name: Clusters() for name in names}
    for row in rows:
        if not row.is_right:
            found["false_accept_rate_before"].add(row.problem, float(row.score == 1.0))
            found["false_accept_rate_after"].add(row.problem, float(row.proof in won))
    for match in matches:
        found["contradictory"].add(match.stronger.problem, float(match.is_contradictory))
    return {name: clusters.figure() for name, clusters in found.items()}


def _wrong(rows: Sequence[JudgedProof]) -> float:
    return fmean(not row.is_right for row in rows)
