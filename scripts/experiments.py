"""Makes the tables of docs/experiments.md and its plot from the kept results: python scripts/experiments.py

A result is what `proofloop runs show NAME --json` prints of a finished curriculum, kept as
examples/nano-iterate/results/seed-N.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "examples" / "nano-iterate" / "results"
PAGE = ROOT / "docs" / "experiments.md"
PLOT = ROOT / "docs" / "experiments.svg"
MARK = "<!-- below: made by scripts/experiments.py -->"
Result = dict[str, Any]  # of one seed
Figure = dict[str, Any]

COLD, VERIFIER, NO_META, ENHANCED = "0-cold_start", "1-verifier", "1-enhanced-no-meta", "1-enhanced"
NO_SELF, GENERATOR, ENHANCED_2, GENERATOR_2 = "1-generator-no-self", "1-generator", "2-enhanced", "2-generator"
SHOWN: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("Accuracy of the verifier's score", "verifier", "accuracy", (COLD, VERIFIER, NO_META, ENHANCED, ENHANCED_2)),
    ("... on flawed proofs", "verifier", "accuracy_flawed", (COLD, VERIFIER, NO_META, ENHANCED, ENHANCED_2)),
    ("Faithfulness of its critiques", "verifier", "faithfulness", (COLD, VERIFIER, NO_META, ENHANCED, ENHANCED_2)),
    ("Quality of those that report an issue", "verifier", "quality", (COLD, VERIFIER, NO_META, ENHANCED, ENHANCED_2)),
    ("Accuracy on hard proofs", "verifier-hard", "accuracy", (COLD, ENHANCED, ENHANCED_2)),
    ("Faithfulness on hard proofs", "verifier-hard", "faithfulness", (COLD, ENHANCED, ENHANCED_2)),
    ("Accuracy of the meta-verifier", "meta", "accuracy", (COLD, "1-meta_verifier", ENHANCED, ENHANCED_2)),
    ("Pass@1", "generator", "pass_at_1", (COLD, NO_SELF, GENERATOR, GENERATOR_2)),
    ("Pass@1 on hard problems", "generator-hard", "pass_at_1", (COLD, NO_SELF, GENERATOR, GENERATOR_2)),
    ("Self-evaluation, mean abs(s' - s)", "generator", "self_error", (COLD, NO_SELF, GENERATOR, GENERATOR_2)),
    ("... on hard problems", "generator-hard", "self_error", (COLD, NO_SELF, GENERATOR, GENERATOR_2)),
    ("... of flawed proofs there", "generator-hard", "self_error_flawed", (COLD, NO_SELF, GENERATOR, GENERATOR_2)),
    ("Auto-labels: agreement of the decided", "labels", "agreement", (COLD, GENERATOR, GENERATOR_2)),
    ("Auto-labels: left undecided", "labels", "undecided", (COLD, GENERATOR, GENERATOR_2)),
    ("Agreement on hard problems", "labels-hard", "agreement", (COLD, GENERATOR, GENERATOR_2)),
    ("Left undecided on hard problems", "labels-hard", "undecided", (COLD, GENERATOR, GENERATOR_2)),
)
ROUNDS = (1, 2, 4, 8)


def value(result: Result, version: str, kind: str, name: str) -> float:
    """A figure's mean; not a number where it was not measured."""
    found = _find(result, version, kind, name)
    return float("nan") if found is None or found["value"] is None else float(found["value"])


def gain(result: Result, before: str, after: str, kind: str, name: str) -> float:
    return value(result, after, kind, name) - value(result, before, kind, name)


def refined(result: Result, version: str, what: str) -> float:
    return value(result, version, "refinement", what)


CLAIMS: tuple[tuple[str, tuple[tuple[str, Callable[[Result], float], Callable[[float], bool]], ...]], ...] = (
    (
        "Verifier RL",
        (("accuracy, gained", lambda r: gain(r, COLD, VERIFIER, "verifier", "accuracy"), lambda x: x >= 0.10),),
    ),
    (
        "R_meta keeps critiques honest",
        (
            ("faithfulness, gained", lambda r: gain(r, COLD, ENHANCED, "verifier", "faithfulness"), lambda x: x > 0),
            ("faithfulness", lambda r: value(r, ENHANCED, "verifier", "faithfulness"), lambda x: x >= 0.95),
            (
                "accuracy, against without R_meta",
                lambda r: gain(r, NO_META, ENHANCED, "verifier", "accuracy"),
                lambda x: x >= -0.02,
            ),
            (
                "faithfulness, against without R_meta",
                lambda r: gain(r, NO_META, ENHANCED, "verifier", "faithfulness"),
                lambda x: x > 0,
            ),
        ),
    ),
    (
        "Generator RL from learned judges",
        (
            ("Pass@1, gained", lambda r: gain(r, COLD, GENERATOR, "generator", "pass_at_1"), lambda x: x >= 0.20),
            ("Pass@1", lambda r: value(r, GENERATOR, "generator", "pass_at_1"), lambda x: x >= 0.90),
        ),
    ),
    (
        "Honest self-evaluation",
        (
            ("error, as a share of the cold start's", lambda r: _shares(r, "generator", COLD), lambda x: x <= 0.5),
            ("the same on hard problems", lambda r: _shares(r, "generator-hard", COLD), lambda x: x <= 0.5),
            (
                "on hard problems, as a share of beta = 0",
                lambda r: _shares(r, "generator-hard", NO_SELF),
                lambda x: x < 1,
            ),
        ),
    ),
    (
        "Auto-labels",
        tuple(
            (f"{name}, {where}", lambda r, v=version, k=kind, n=name: value(r, v, k, n), rule)
            for where, kind, version in (
                ("the cold start's proofs", "labels", COLD),
                ("iteration 1's", "labels", GENERATOR),
                ("iteration 1's, hard", "labels-hard", GENERATOR),
            )
            for name, rule in (("agreement", lambda x: x >= 0.97), ("undecided", lambda x: x <= 0.15))
        ),
    ),
    (
        "Flywheel, iteration 2 against 1",
        (
            ("accuracy, hard", lambda r: gain(r, ENHANCED, ENHANCED_2, "verifier-hard", "accuracy"), lambda x: x > 0),
            (
                "faithfulness, hard",
                lambda r: gain(r, ENHANCED, ENHANCED_2, "verifier-hard", "faithfulness"),
                lambda x: x > 0,
            ),
            (
                "Pass@1, hard",
                lambda r: gain(r, GENERATOR, GENERATOR_2, "generator-hard", "pass_at_1"),
                lambda x: x > 0,
            ),
        ),
    ),
    (
        "Sequential refinement, hard problems",
        tuple(
            (f"{name}, {who}", lambda r, v=version, f=found: f(r, v), rule)
            for who, version in (("cold start", COLD), ("iteration 1", GENERATOR), ("iteration 2", GENERATOR_2))
            for name, found, rule in (
                (
                    "Pass@1, 8 rounds against 1",
                    lambda r, v: refined(r, v, "pass_at_1_round_8") - refined(r, v, "pass_at_1_round_1"),
                    lambda x: x > 0,
                ),
                (
                    "Best@32 against Pass@1, 8 rounds",
                    lambda r, v: refined(r, v, "best_of_32_round_8") - refined(r, v, "pass_at_1_round_8"),
                    lambda x: x >= 0.05,
                ),
            )
        ),
    ),
)


def main() -> None:
    results = {path.stem.removeprefix("seed-"): json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    head = PAGE.read_text("utf-8").partition(MARK)[0].rstrip()
    sections = [_claims(results), _figures(results), _refinement(results), _stages(results)]
    PAGE.write_text("\n\n".join([head, MARK, *("\n".join(rows) for rows in sections)]) + "\n", "utf-8")
    PLOT.write_text(_plot(results), "utf-8")


def _shares(result: Result, kind: str, of: str) -> float:
    return value(result, GENERATOR, kind, "self_error") / value(result, of, kind, "self_error")


def _claims(results: dict[str, Result]) -> list[str]:
    """Every claim with what each seed saw; bold where it holds."""
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
    rows = ["## Every figure", "", f"| figure | version | {_seeds(results)} |", "|---|---|" + "---|" * len(results)]
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
                shown = [_shown(_find(result, version, "refinement", f"{name}_round_{number}")) for number in ROUNDS]
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
            gates = "; ".join(f"{each['before']:.3f} → {each['after']:.3f}" for each in stage["gates"])
            serves = ", ".join(sorted(stage["serves"]))
            rows.append(
                f"| {name} | {seed} | {stage['seconds']:.0f} | {stage['cpu_seconds']:.0f} | {gates} | {serves} |"
            )
        wall, cpu = (sum(stage[name] for stage in stages.values()) for name in ("seconds", "cpu_seconds"))
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
    """One line a figure and version, one dot with its interval a seed."""
    lines = [(title, version, kind, name) for title, kind, name, versions in SHOWN for version in versions]
    height = 26 + 17 * len(lines)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 {height}" font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
        *(f'<text x="{_x(tick)}" y="12" text-anchor="middle">{tick:g}</text>' for tick in (0, 0.25, 0.5, 0.75, 1)),
    ]
    before = ""
    for number, (title, version, kind, name) in enumerate(lines):
        y = 30 + 17 * number
        if title != before:
            parts.append(
                f'<line x1="0" x2="900" y1="{y - 12}" y2="{y - 12}" stroke="#ddd"/><text x="4" y="{y}">{title}</text>'
            )
        before = title
        parts.append(f'<text x="480" y="{y}" text-anchor="end">{version}</text>')
        for place, result in enumerate(results.values()):
            parts += _dot(_find(result, version, kind, name), y - 7 + 4 * place, place)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _dot(figure: Figure | None, y: float, place: int) -> list[str]:
    if figure is None or figure["value"] is None:
        return []
    colour = ("#1b6ca8", "#c0392b", "#2e8b57")[place % 3]
    low, middle, high = (_x(figure[name]) for name in ("low", "value", "high"))
    return [
        f'<line x1="{low}" x2="{high}" y1="{y}" y2="{y}" stroke="{colour}"/>',
        f'<circle cx="{middle}" cy="{y}" r="2.5" fill="{colour}"/>',
    ]


def _x(share: float) -> float:
    return round(500 + 380 * share, 1)


if __name__ == "__main__":
    main()
