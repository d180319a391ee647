"""The output of `proofloop judge`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from proofloop.cli.common import emit
from proofloop.cli.judge.runs import Judged
from proofloop.judging.attacks.figures import AttackFigures, attack_figures, parser_figures
from proofloop.judging.graded.proofs import GradedProofs
from proofloop.judging.tables import attack_rows, figure_rows
from proofloop.method.prompts import load_pack

SKIPPED_PRINTED = 10


def print_notes(read: GradedProofs) -> None:
    for note in read.notes:
        print(note, file=sys.stderr)
    for reason in read.skipped[:SKIPPED_PRINTED]:
        print(f"skipped: {reason}", file=sys.stderr)
    if len(read.skipped) > SKIPPED_PRINTED:
        print(f"skipped: {len(read.skipped) - SKIPPED_PRINTED} more rows", file=sys.stderr)


def print_figures(judged: Sequence[Judged], read: GradedProofs, *, as_json: bool) -> None:
    """Print the figures, judges side by side."""
    if as_json:
        _print_json([one.figures.model_dump(mode="json") for one in judged], read)
        return
    for title, table in figure_rows([one.figures for one in judged]):
        emit(table, as_json=False, title=title)


def print_attacks(judged: Sequence[Judged], read: GradedProofs, *, as_json: bool) -> None:
    """Print how often each kind of attack succeeds, and what fences and parsing let pass."""
    if as_json:
        _print_json([_attack_fields(one, read) for one in judged], read)
        return
    for one in judged:
        found = _attack_fields(one, read)
        attacks = [AttackFigures.model_validate(each) for each in found["attacks"]]
        emit(
            list(attack_rows(attacks)), as_json=False, title=f"{found['run_id']}: accepted attacks"
        )
        title = "attacks on fences and parsing that succeed without a model call"
        title += "" if found["fenced"] else " (this prompt pack has no fences)"
        emit(found["on_parser"], as_json=False, title=title)


def _attack_fields(one: Judged, read: GradedProofs) -> dict[str, Any]:
    spec, rule = one.spec, one.spec.labeling
    pack = load_pack(spec.prompts, spec.base)
    attacks = attack_figures(one.rows, n=rule.n, k=rule.k, has_meta=bool(rule.m))
    on_parser = parser_figures(read.cases, pack, spec.how_to_read)
    return {
        "run_id": spec.name,
        "fenced": pack.fenced,
        "attacks": [each.model_dump(mode="json") for each in attacks],
        "on_parser": [each.model_dump(mode="json") for each in on_parser],
    }


def _print_json(runs: list[dict[str, Any]], read: GradedProofs) -> None:
    print(json.dumps({"skipped": read.skipped, "runs": runs}, indent=2))
