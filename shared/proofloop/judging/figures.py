"""The figures of a judge: by number of critiques, acceptance rule, source, problem and grade."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

from proofloop.judging.agreement import mean_figures, statistic_figures, values
from proofloop.judging.knock_out import KnockOut
from proofloop.judging.predictions import VERIFIER, Prediction, Predictions
from proofloop.judging.rows import JudgedProof
from proofloop.method.acceptance import chosen_threshold, scores_of
from proofloop.runs.figures import Clusters, Figure
from proofloop.schema.records import Record, digest

BINS = 10
"""Of the reliability diagram."""

ACCEPTANCE_RATES = (0.25, 0.5, 0.75)

IN_GROUPS = ("accuracy", "false_accept_rate", "leniency")
"""The figures of each source, problem and grade."""


class Bin(Record):
    """A bar of the reliability diagram: the mean strength of its proofs, and the share of right
    ones.
    """

    strength: float
    right: float
    proofs: int


class Point(Record):
    """The figures of one way with this many critiques, and the mean cost of a proof.

    The cost of fewer than n critiques is their share of the cost of all n.
    """

    critiques: int
    way: str
    money: float
    tokens: float
    figures: Mapping[str, Figure]
    others: Mapping[str, float | None]


class Acceptance(Record):
    """A rule at a wanted acceptance rate. Its threshold was chosen on one half of the problems; all
    figures are of the other half.
    """

    rule: str
    wanted: float
    threshold: float
    accepted: Figure
    false_accept_rate: Figure
    wrong_among_accepted: Figure


class JudgeFigures(Record):
    """All figures of one run.

    `ways`: by way (`verifier`, `meta_verified`) with all critiques. `critiques`: self-consistency,
    and the shares of unreadable and failed critiques. `solved`: the figures of the proofs that pass
    all n critiques. `groups`: by `source`, `problem` and `grade`. `knock_out`: None if there was
    none.
    """

    run_id: str
    proofs: int
    problems: int
    n: int
    ways: Mapping[str, Mapping[str, Figure]]
    critiques: Mapping[str, Figure]
    solved: Mapping[str, Figure]
    by_count: tuple[Point, ...]
    reliability: Mapping[str, tuple[Bin, ...]]
    acceptance: tuple[Acceptance, ...]
    groups: Mapping[str, Mapping[str, Mapping[str, Figure]]]
    knock_out: KnockOut | None = None


def judge_figures(
    run_id: str, rows: Sequence[JudgedProof], predictions: Predictions
) -> JudgeFigures:
    """Compute the figures of a run."""
    last = {way: predictions.of(rows, way) for way in predictions.ways}
    return JudgeFigures(
        run_id=run_id,
        proofs=len(rows),
        problems=len({row.problem for row in rows}),
        n=predictions.n,
        ways={name: mean_figures(some) | statistic_figures(some) for name, some in last.items()},
        critiques=_of_critiques(rows),
        solved=_of_solved(rows),
        by_count=tuple(_by_count(rows, predictions)),
        reliability={name: _reliability(some) for name, some in last.items()},
        acceptance=tuple(_acceptance(rows, predictions)),
        groups={
            what: _grouped(rows, predictions, key)
            for what, key in GROUPED_BY.items()
            if len({key(row) for row in rows}) > 1
        },
    )


def _share(pairs: Iterator[tuple[str, bool]]) -> Figure:
    clusters = Clusters()
    for problem, holds in pairs:
        clusters.add(problem, float(holds))
    return clusters.figure()


def _of_critiques(rows: Sequence[JudgedProof]) -> dict[str, Figure]:
    """Unreadable and failed critiques are counted apart: neither is a score of 0."""
    every = [(row.problem, critique) for row in rows for critique in row.critiques]
    unread = ("malformed", "truncated")
    return {
        "self_consistency": _consistency(rows),
        "unreadable": _share((problem, each.outcome in unread) for problem, each in every),
        "failed": _share((problem, each.outcome == "engine_failed") for problem, each in every),
    }


def _consistency(rows: Sequence[JudgedProof]) -> Figure:
    """The share of pairs of critiques of a proof with the same score, mean over proofs."""
    clusters = Clusters()
    for row in rows:
        times = Counter(scores_of(row.judgements))
        if (readable := times.total()) > 1:
            agreeing = sum(count * (count - 1) for count in times.values())
            clusters.add(row.problem, agreeing / (readable * (readable - 1)))
    return clusters.figure()


def _of_solved(rows: Sequence[JudgedProof]) -> dict[str, Figure]:
    """The worth of "solved": the number of proofs that pass all n critiques, and of wrong ones
    among them.
    """
    return {
        "solved": _share((row.problem, row.solved) for row in rows),
        "false_accept_rate": _share((row.problem, row.solved) for row in rows if not row.is_right),
        "wrong_among_solved": _share((row.problem, not row.is_right) for row in rows if row.solved),
    }


def _by_count(rows: Sequence[JudgedProof], predictions: Predictions) -> Iterator[Point]:
    for critiques in predictions.counts:
        for way in predictions.ways:
            some, share = predictions.of(rows, way, critiques), critiques / predictions.n
            yield Point(
                critiques=critiques,
                way=way,
                money=_cost(rows, "money", share, with_metas=way != VERIFIER),
                tokens=_cost(rows, "tokens", share, with_metas=way != VERIFIER),
                figures=mean_figures(some),
                others=values(some),
            )


def _cost(rows: Sequence[JudgedProof], what: str, share: float, *, with_metas: bool) -> float:
    total = sum(getattr(row.verifying, what) for row in rows)
    if with_metas:
        total += sum(getattr(row.meta_verifying, what) for row in rows)
    return share * total / len(rows) if rows else 0.0


def _reliability(predictions: Sequence[Prediction]) -> tuple[Bin, ...]:
    bins: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for each in predictions:
        if each.strength is not None:
            bins[min(BINS - 1, int(BINS * each.strength))].append((each.strength, each.is_right))
    return tuple(
        Bin(
            strength=sum(strength for strength, _ in some) / len(some),
            right=sum(right for _, right in some) / len(some),
            proofs=len(some),
        )
        for _, some in sorted(bins.items())
    )


def _acceptance(rows: Sequence[JudgedProof], predictions: Predictions) -> Iterator[Acceptance]:
    chosen_on = [row for row in rows if int(digest(row.problem), 16) % 2 == 0]
    reported = [row for row in rows if int(digest(row.problem), 16) % 2 == 1]
    if not chosen_on or not reported:
        return
    for rule in predictions.rules:
        known = predictions.strengths(chosen_on, rule)
        others = list(zip(reported, predictions.strengths(reported, rule), strict=True))
        for wanted in ACCEPTANCE_RATES:
            yield _at_threshold(rule, wanted, chosen_threshold(known, wanted).at, others)


def _at_threshold(
    rule: str, wanted: float, at: float, rows: Sequence[tuple[JudgedProof, float | None]]
) -> Acceptance:
    """The figures of a rule that accepts proofs from this strength on."""
    pairs = [(row, strength is not None and strength >= at) for row, strength in rows]
    return Acceptance(
        rule=rule,
        wanted=wanted,
        threshold=at,
        accepted=_share((row.problem, yes) for row, yes in pairs),
        false_accept_rate=_share((row.problem, yes) for row, yes in pairs if not row.is_right),
        wrong_among_accepted=_share((row.problem, not row.is_right) for row, yes in pairs if yes),
    )


GROUPED_BY: Mapping[str, Callable[[JudgedProof], str]] = {
    "source": lambda row: row.source or "(none)",
    "problem": lambda row: row.problem,
    "grade": lambda row: f"{row.grade:.3g}",
    "attack": lambda row: row.attack,
}


def _grouped(
    rows: Sequence[JudgedProof], predictions: Predictions, key: Callable[[JudgedProof], str]
) -> dict[str, dict[str, Figure]]:
    """The figures of each group, by the last way: with meta-verification where there is any."""
    way = list(predictions.ways)[-1]
    groups: dict[str, list[Prediction]] = defaultdict(list)
    for row, prediction in zip(rows, predictions.of(rows, way), strict=True):
        groups[key(row)].append(prediction)
    return {name: mean_figures(some, IN_GROUPS) for name, some in sorted(groups.items())}
