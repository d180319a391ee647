"""Makes the tables of docs/experiments.md and its plot from the kept results: python scripts/experiments.py

A result is what `proofloop runs show NAME --json` prints of a finished curriculum, kept as
examples/nano-iterate/results/seed-N.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "examples" / "nano-iterate" / "results"
PAGE = ROOT / "docs" / "experiments.md"
PLOT = ROOT / "docs" / "experiments.svg"
MARK = "<!-- below: made by scripts/experiments.py -->"
Figure = dict[str, Any]
Results = dict[str, dict[str, Any]]  # by seed

CLAIMS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("Verifier RL: accuracy of the score", "verifier", "accuracy", ("0-cold_start", "1-verifier")),
    (
        "R_meta: faithfulness of the critiques",
        "verifier",
        "faithfulness",
        ("0-cold_start", "1-verifier", "1-enhanced-no-meta", "1-enhanced"),
    ),
    (
        "R_meta: quality of the analyses that report an issue",
        "verifier",
        "quality",
        ("0-cold_start", "1-verifier", "1-enhanced-no-meta", "1-enhanced"),
    ),
    ("R_meta: accuracy of the score beside it", "verifier", "accuracy", ("1-enhanced-no-meta", "1-enhanced")),
    (
        "Meta-verifier: accuracy of the quality score",
        "meta",
        "accuracy",
        ("0-cold_start", "1-meta_verifier", "1-enhanced"),
    ),
    (
        "Generator RL from learned judges: Pass@1",
        "generator",
        "pass_at_1",
        ("0-cold_start", "1-generator", "2-generator"),
    ),
    (
        "The same on problems of six steps",
        "generator-hard",
        "pass_at_1",
        ("0-cold_start", "1-generator", "2-generator"),
    ),
    (
        "Honest self-evaluation: mean abs(s' - s)",
        "generator",
        "self_error",
        ("0-cold_start", "1-generator-no-self", "1-generator"),
    ),
    (
        "The same of flawed proofs only",
        "generator",
        "self_error_flawed",
        ("0-cold_start", "1-generator-no-self", "1-generator"),
    ),
    ("Auto-labels: agreement of the decided", "labels", "agreement", ("0-cold_start", "1-generator")),
    ("Auto-labels: left undecided", "labels", "undecided", ("0-cold_start", "1-generator")),
    ("Flywheel: verifier's accuracy on hard proofs", "verifier-hard", "accuracy", ("1-enhanced", "2-enhanced")),
    ("Flywheel: its faithfulness there", "verifier-hard", "faithfulness", ("1-enhanced", "2-enhanced")),
    ("Flywheel: generator's Pass@1 on hard problems", "generator-hard", "pass_at_1", ("1-generator", "2-generator")),
)
REFINED = ("0-cold_start", "1-generator")


def main() -> None:
    results = {path.stem.removeprefix("seed-"): json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    head = PAGE.read_text("utf-8").partition(MARK)[0].rstrip()
    sections = [_claims(results), _refinement(results), _stages(results)]
    PAGE.write_text("\n\n".join([head, MARK, *("\n".join(rows) for rows in sections)]) + "\n", "utf-8")
    PLOT.write_text(_plot(results), "utf-8")


def _claims(results: Results) -> list[str]:
    rows = [f"| figure | version | {' | '.join(f'seed {seed}' for seed in results)} |"]
    rows.append("|---|---|" + "---|" * len(results))
    for title, kind, name, versions in CLAIMS:
        for number, version in enumerate(versions):
            shown = [_shown(_find(result, version, kind, name)) for result in results.values()]
            rows.append(f"| {title if number == 0 else ''} | {version} | {' | '.join(shown)} |")
    return rows


def _refinement(results: Results) -> list[str]:
    names = [*(f"pass_at_1_round_{number}" for number in (1, 2, 4, 8)), "best_of_32_by_self_score"]
    rows = ["| refinement, six-step problems | seed | " + " | ".join(names) + " |", "|---|---|" + "---|" * len(names)]
    for version in REFINED:
        for seed, result in results.items():
            shown = [_shown(_find(result, version, "refinement", name)) for name in names]
            rows.append(f"| {version} | {seed} | {' | '.join(shown)} |")
    return rows


def _stages(results: Results) -> list[str]:
    rows = ["| stage | seed | seconds | gate, on the validation split | serves |", "|---|---|---|---|---|"]
    for seed, result in results.items():
        for name, stage in result["stages"].items():
            gates = "; ".join(f"{each['before']:.3f} → {each['after']:.3f}" for each in stage["gates"])
            rows.append(
                f"| {name} | {seed} | {stage['seconds']:.0f} | {gates} | {', '.join(sorted(stage['serves']))} |"
            )
    return rows


def _find(result: dict[str, Any], version: str, kind: str, name: str) -> Figure | None:
    found: Figure | None = result["figures"].get(f"{version}/{kind}", {}).get(name)
    return found


def _shown(figure: Figure | None) -> str:
    if figure is None or figure["value"] is None:
        return "-"
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def _plot(results: Results) -> str:
    """One line a figure and version, one dot with its interval a seed."""
    lines = [(title, version, kind, name) for title, kind, name, versions in CLAIMS for version in versions]
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
    low, value, high = (_x(figure[name]) for name in ("low", "value", "high"))
    return [
        f'<line x1="{low}" x2="{high}" y1="{y}" y2="{y}" stroke="{colour}"/>',
        f'<circle cx="{value}" cy="{y}" r="2.5" fill="{colour}"/>',
    ]


def _x(value: float) -> float:
    return round(500 + 380 * value, 1)


if __name__ == "__main__":
    main()
