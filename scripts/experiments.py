"""Generates the tables and the plot of docs/experiments.md from stored results: python
scripts/experiments.py

A result is the output of `proofloop runs show NAME --json` for a finished curriculum, stored as
examples/nano-iterate/results/seed-N.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "examples" / "nano-iterate" / "results"
PAGE = ROOT / "docs" / "experiments.md"
PLOT = ROOT / "docs" / "experiments.svg"
MARK = "<!-- below: made by scripts/experiments.py -->"
Result = dict[str, Any]  # the result of one seed
Figure = dict[str, Any]

COLD, VERIFIER, NO_META, ENHANCED = "0-cold_start", "1-verifier", "1-enhanced-no-meta", "1-enhanced"
NO_SELF, GENERATOR, ENHANCED_2, GENERATOR_2 = (
    "1-generator-no-self",
    "1-generator",
    "2-enhanced",
    "2-generator",
)
SERVED, SERVED_2 = (
    "1-consolidate",
    "2-consolidate",
)  # serve all roles for which the gate promoted them
JUDGES = (COLD, VERIFIER, NO_META, ENHANCED, SERVED, ENHANCED_2, SERVED_2)
REFRESHED, REFRESHED_2 = "1-enhanced-refreshed", "2-enhanced-refreshed"
METAS = (COLD, "1-meta_verifier", REFRESHED, ENHANCED, SERVED, REFRESHED_2, ENHANCED_2, SERVED_2)
PROVERS = (COLD, NO_SELF, GENERATOR, SERVED, GENERATOR_2, SERVED_2)
SHOWN: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("Accuracy of the verifier's score", "verifier", "accuracy", JUDGES),
    ("... on flawed proofs", "verifier", "accuracy_flawed", JUDGES),
    ("Faithfulness of its critiques", "verifier", "faithfulness", JUDGES),
    ("Quality of those that report an issue", "verifier", "quality", JUDGES),
    ("Accuracy on hard proofs", "verifier-hard", "accuracy", JUDGES),
    ("Faithfulness on hard proofs", "verifier-hard", "faithfulness", JUDGES),
    ("Accuracy of the meta-verifier", "meta", "accuracy", METAS),
    ("Pass@1", "generator", "pass_at_1", PROVERS),
    ("Pass@1 on hard problems", "generator-hard", "pass_at_1", PROVERS),
    ("Self-evaluation, mean abs(s' - s)", "generator", "self_error", PROVERS),
    ("... on hard problems", "generator-hard", "self_error", PROVERS),
    ("... of flawed proofs there", "generator-hard", "self_error_flawed", PROVERS),
    (
        "Flawed proofs there whose own score is right",
        "generator-hard",
        "self_accuracy_flawed",
        PROVERS,
    ),
    (
        "Auto-labels: agreement of the decided",
        "labels",
        "agreement",
        (COLD, GENERATOR, GENERATOR_2),
    ),
    ("Auto-labels: left undecided", "labels", "undecided", (COLD, GENERATOR, GENERATOR_2)),
    ("Agreement on hard problems", "labels-hard", "agreement", (COLD, GENERATOR, GENERATOR_2)),
    ("Left undecided on hard problems", "labels-hard", "undecided", (COLD, GENERATOR, GENERATOR_2)),
)
ROUNDS = (1, 2, 4, 8)
COLOURS = ("#1b6ca8", "#c0392b", "#2e8b57")  # one for each seed


def value(result: Result, version: str, kind: str, name: str) -> float:
    """A figure's mean; NaN if it was not measured."""
    found = _find(result, version, kind, name)
    return float("nan") if found is None or found["value"] is None else float(found["value"])


def gain(result: Result, before: str, after: str, kind: str, name: str) -> float:
    return value(result, after, kind, name) - value(result, before, kind, name)


def refined(result: Result, version: str, what: str, number: int) -> float:
    return value(result, version, "refinement", f"{what}_round_{number}")


def _figure(version: str, kind: str, name: str) -> Callable[[Result], float]:
    return lambda result: value(result, version, kind, name)


def _each(
    title: str, kind: str, name: str, versions: tuple[str, ...], holds: Callable[[float], bool]
) -> Iterator[tuple[str, Callable[[Result], float], Callable[[float], bool]]]:
    """Claims about the same figure of several versions."""
    for version in versions:
        yield f"{title}, {version}", _figure(version, kind, name), holds


CLAIMS: tuple[
    tuple[str, tuple[tuple[str, Callable[[Result], float], Callable[[float], bool]], ...]], ...
] = (
    (
        "Verifier RL",
        (
            (
                "accuracy, gained",
                lambda r: gain(r, COLD, VERIFIER, "verifier", "accuracy"),
                lambda x: x >= 0.10,
            ),
        ),
    ),
    (
        "R_meta keeps critiques honest",
        (
            (
                "faithfulness, gained",
                lambda r: gain(r, COLD, ENHANCED, "verifier", "faithfulness"),
                lambda x: x > 0,
            ),
            *_each(
                "faithfulness",
                "verifier",
                "faithfulness",
                (ENHANCED, SERVED, SERVED_2),
                lambda x: x >= 0.95,
            ),
            *(
                (
                    f"accuracy, {version} against no R_meta",
                    lambda r, v=version: gain(r, NO_META, v, "verifier", "accuracy"),
                    lambda x: x >= -0.02,
                )
                for version in (ENHANCED, SERVED, SERVED_2)
            ),
            (
                "faithfulness, 1-enhanced against no R_meta",
                lambda r: gain(r, NO_META, ENHANCED, "verifier", "faithfulness"),
                lambda x: x >= 0.05,
            ),
        ),
    ),
    (
        "Generator RL from learned judges",
        (
            (
                "Pass@1, gained",
                lambda r: gain(r, COLD, GENERATOR, "generator", "pass_at_1"),
                lambda x: x >= 0.20,
            ),
            *_each(
                "Pass@1",
                "generator",
                "pass_at_1",
                (GENERATOR, SERVED, GENERATOR_2),
                lambda x: x >= 0.90,
            ),
        ),
    ),
    (
        "Honest self-evaluation",
        tuple(
            (
                f"error{where}, {version}, as a share of the cold start's",
                lambda r, v=version, k=kind: (
                    value(r, v, k, "self_error") / value(r, COLD, k, "self_error")
                ),
                lambda x: x <= 0.5,
            )
            for where, kind in (("", "generator"), (" on hard problems", "generator-hard"))
            for version in (NO_SELF, GENERATOR, GENERATOR_2)
        ),
    ),
    (
        "Auto-labels",
        tuple(
            part
            for where, kind, version in (
                ("the cold start's proofs", "labels", COLD),
                ("iteration 1's", "labels", GENERATOR),
                ("iteration 2's", "labels", GENERATOR_2),
                ("iteration 2's, hard", "labels-hard", GENERATOR_2),
            )
            for part in (
                (f"agreement, {where}", _figure(version, kind, "agreement"), lambda x: x >= 0.97),
                (f"undecided, {where}", _figure(version, kind, "undecided"), lambda x: x <= 0.15),
            )
        ),
    ),
    (
        "Flywheel on hard problems, the consolidated model of iteration 2 against that of 1",
        (
            (
                "accuracy",
                lambda r: gain(r, SERVED, SERVED_2, "verifier-hard", "accuracy"),
                lambda x: x > 0,
            ),
            (
                "faithfulness",
                lambda r: gain(r, SERVED, SERVED_2, "verifier-hard", "faithfulness"),
                lambda x: x > 0,
            ),
            (
                "Pass@1",
                lambda r: gain(r, SERVED, SERVED_2, "generator-hard", "pass_at_1"),
                lambda x: x > 0,
            ),
            (
                "Pass@1, before consolidation",
                lambda r: gain(r, GENERATOR, GENERATOR_2, "generator-hard", "pass_at_1"),
                lambda x: x > 0,
            ),
        ),
    ),
    (
        "Sequential refinement, hard problems",
        tuple(
            part
            for version in (COLD, GENERATOR, GENERATOR_2)
            for part in (
                (
                    f"Pass@1, 8 rounds against 1, {version}",
                    lambda r, v=version: (
                        refined(r, v, "pass_at_1", 8) - refined(r, v, "pass_at_1", 1)
                    ),
                    lambda x: x > 0,
                ),
                *(
                    (
                        f"Best@32 against Pass@1, round {number}, {version}",
                        lambda r, v=version, n=number: (
                            refined(r, v, "best_of_32", n) - refined(r, v, "pass_at_1", n)
                        ),
                        lambda x: x >= 0.05,
                    )
                    for number in (1, 8)
                ),
            )
        ),
    ),
)


def main() -> None:
    results = {
        path.stem.removeprefix("seed-"): json.loads(path.read_text())
        for path in sorted(RESULTS.glob("*.json"))
    }
    head = PAGE.read_text("utf-8").partition(MARK)[0].rstrip()
    sections = [_claims(results), _figures(results), _refinement(results), _stages(results)]
    PAGE.write_text(
        "\n\n".join([head, MARK, *("\n".join(rows) for rows in sections)]) + "\n", "utf-8"
    )
    PLOT.write_text(_plot(results), "utf-8")


def _claims(results: dict[str, Result]) -> list[str]:
    """The table of claims with each seed's value, which is bold if the claim holds."""
    rows = [
        "## Claims",
        "",
        f"| claim | figure | {_seeds(results)} | holds |",
        "|---|---|" + "---|" * (len(results) + 1),
    ]
    for claim, parts in CLAIMS:
        for number, (figure, found, holds) in enumerate(parts):
            seen = [found(result) for result in results.values()]
            shown = [f"**{each:.3f}**" if holds(each) else f"{each:.3f}" for each in seen]
            count = f"{sum(map(holds, seen))} of {len(seen)}"
            rows.append(f"| {'' if number else claim} | {figure} | {' | '.join(shown)} | {count} |")
    return rows


def _figures(results: dict[str, Result]) -> list[str]:
    rows = [
        "## Every figure",
        "",
        f"| figure | version | {_seeds(results)} |",
        "|---|---|" + "---|" * len(results),
    ]
    for title, kind, name, versions in SHOWN:
        for number, version in enumerate(versions):
            shown = [_shown(_find(result, version, kind, name)) for result in results.values()]
            rows.append(f"| {'' if number else title} | {version} | {' | '.join(shown)} |")
    return rows


def _refinement(results: dict[str, Result]) -> list[str]:
    columns = " | ".join(f"round {number}" for number in ROUNDS)
    rows = [
        "## Refinement on hard problems",
        "",
        f"| version | seed | figure | {columns} |",
        "|---|---|---|---|---|---|---|",
    ]
    for version in (COLD, GENERATOR, GENERATOR_2):
        for seed, result in results.items():
            for title, name in (("Pass@1", "pass_at_1"), ("Best@32", "best_of_32")):
                shown = [
                    _shown(_find(result, version, "refinement", f"{name}_round_{number}"))
                    for number in ROUNDS
                ]
                rows.append(f"| {version} | {seed} | {title} | {' | '.join(shown)} |")
    return rows


def _stages(results: dict[str, Result]) -> list[str]:
    rows = [
        "## Stages",
        "",
        "| stage | seed | seconds | of the processor | gate, on the validation split | serves |",
        "|---|---|---|---|---|---|",
    ]
    for seed, result in results.items():
        stages = result["stages"]
        for name, stage in stages.items():
            gates = "; ".join(
                f"{each['before']:.3f} → {each['after']:.3f}" for each in stage["gates"]
            )
            serves = ", ".join(sorted(stage["serves"]))
            rows.append(
                f"| {name} | {seed} | {stage['seconds']:.0f} | {stage['cpu_seconds']:.0f} | {gates}"
                f" | {serves} |"
            )
        wall, cpu = (
            sum(stage[name] for stage in stages.values()) for name in ("seconds", "cpu_seconds")
        )
        rows.append(f"| **all** | {seed} | **{wall:.0f}** | **{cpu:.0f}** | | |")
    return rows


def _seeds(results: dict[str, Result]) -> str:
    return " | ".join(f"seed {seed}" for seed in results)


def _find(result: Result, version: str, kind: str, name: str) -> Figure | None:
    found: Figure | None = result["figures"].get(f"{version}/{kind}", {}).get(name)
    return found


def _shown(figure: Figure | None) -> str:
    if figure is None or figure["value"] is None:
        return "-"
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def _plot(results: dict[str, Result]) -> str:
    """The plot: a line for each figure and version, with a dot and an interval for each seed."""
    lines = [
        (title, version, kind, name)
        for title, kind, name, versions in SHOWN
        for version in versions
    ]
    height = 26 + 17 * len(lines)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 {height}"'
        ' font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
        *(
            f'<text x="{_x(tick)}" y="12" text-anchor="middle">{tick:g}</text>'
            for tick in (0, 0.25, 0.5, 0.75, 1)
        ),
    ]
    parts += [
        f'<text x="{4 + 60 * place}" y="12" fill="{COLOURS[place]}">seed {seed}</text>'
        for place, seed in enumerate(results)
    ]
    before = ""
    for number, (title, version, kind, name) in enumerate(lines):
        y = 30 + 17 * number
        if title != before:
            parts.append(
                f'<line x1="0" x2="900" y1="{y - 12}" y2="{y - 12}" stroke="#ddd"/><text x="4"'
                f' y="{y}">{title}</text>'
            )
        before = title
        parts.append(f'<text x="480" y="{y}" text-anchor="end">{version}</text>')
        for place, result in enumerate(results.values()):
            parts += _dot(_find(result, version, kind, name), y - 7 + 4 * place, place)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _dot(figure: Figure | None, y: float, place: int) -> list[str]:
    if figure is None or figure["value"] is None:
        return []
    colour = COLOURS[place]
    low, middle, high = (_x(figure[name]) for name in ("low", "value", "high"))
    return [
        f'<line x1="{low}" x2="{high}" y1="{y}" y2="{y}" stroke="{colour}"/>',
        f'<circle cx="{middle}" cy="{y}" r="2.5" fill="{colour}"/>',
    ]


def _x(share: float) -> float:
    return round(500 + 380 * share, 1)


if __name__ == "__main__":
    main()
