"""The figures as tables for a terminal, judges side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from proofloop.judging.attacks.figures import AttackFigures
from proofloop.judging.figures import JudgeFigures
from proofloop.runs.figures import Figure

Table = tuple[str, list[dict[str, Any]]]


def figure_rows(judges: Sequence[JudgeFigures]) -> Iterator[Table]:
    """The tables with their titles."""
    first = judges[0]
    yield f"{first.proofs} proofs of {first.problems} problems", list(_side_by_side(judges))
    yield "against the number of critiques", list(_by_count(judges))
    if any(judge.acceptance for judge in judges):
        yield (
            "acceptance rules: threshold from one half, figures of the other",
            list(_rules(judges)),
        )


def shown(figure: Figure | None) -> str:
    """A figure with its interval."""
    if figure is None or figure.value is None:
        return "-"
    if figure.low is None or figure.high is None:
        return f"{figure.value:.3f}"
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


def side_by_side(judges: Sequence[JudgeFigures]) -> dict[str, Mapping[str, Figure]]:
    """One column of figures for each run and way."""
    return {
        f"{judge.run_id}: {way}" if len(judges) > 1 else way: {
            **figures,
            **judge.critiques,
            **{f"solved: {name}": figure for name, figure in judge.solved.items()},
            **_of_knock_out(judge),
        }
        for judge in judges
        for way, figures in judge.ways.items()
    }


def _of_knock_out(judge: JudgeFigures) -> dict[str, Figure]:
    found = judge.knock_out.figures if judge.knock_out else {}
    return {f"knock-out: {name}": figure for name, figure in found.items()}


def attack_rows(attacks: Sequence[AttackFigures]) -> Iterator[dict[str, Any]]:
    """One row for each kind of attack."""
    for each in attacks:
        yield {
            "attack": each.attack,
            "proofs": each.proofs,
            **{f"accepted: {way}": shown(figure) for way, figure in each.succeeds.items()},
            "critiques that give 1": shown(each.critiques),
        }


def _side_by_side(judges: Sequence[JudgeFigures]) -> Iterator[dict[str, Any]]:
    columns = side_by_side(judges)
    for name in next(iter(columns.values())):
        yield {
            "figure": name,
            **{column: shown(found.get(name)) for column, found in columns.items()},
        }


def _by_count(judges: Sequence[JudgeFigures]) -> Iterator[dict[str, Any]]:
    for judge in judges:
        for point in judge.by_count:
            yield {
                **({"run": judge.run_id} if len(judges) > 1 else {}),
                "critiques": point.critiques,
                "way": point.way,
                **{
                    name: shown(point.figures.get(name))
                    for name in ("accuracy", "false_accept_rate", "recall", "undecided")
                },
                "tokens a proof": f"{point.tokens:,.0f}",
                **({"cost a proof": f"{point.money:.4g}"} if point.money else {}),
            }


def _rules(judges: Sequence[JudgeFigures]) -> Iterator[dict[str, Any]]:
    for judge in judges:
        for each in judge.acceptance:
            yield {
                **({"run": judge.run_id} if len(judges) > 1 else {}),
                "rule": each.rule,
                "wanted": f"{each.wanted:.0%}",
                "threshold": rounded_down(each.threshold),
                "accepted": shown(each.accepted),
                "wrong ones accepted": shown(each.false_accept_rate),
                "wrong among accepted": shown(each.wrong_among_accepted),
            }


def rounded_down(threshold: float) -> str:
    """A threshold in thousandths; rounded up it would refuse the proofs that just reach it."""
    return f"{math.floor(1000 * threshold) / 1000:g}"
