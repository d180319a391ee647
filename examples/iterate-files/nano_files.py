"""Nano problems and grades as files, as if people had graded; and afterwards, what the exact
checker says.

    python examples/iterate-files/nano_files.py make
    proofloop iterate examples/iterate-files/curriculum.toml
    python examples/iterate-files/nano_files.py check

The curriculum reads the files alone: its rewards, its gate and its measuring have no checker.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from proofloop.config.curriculum_file import load_curriculum
from proofloop.config.settings import load_settings
from proofloop.curriculum.status import manifests
from proofloop.method.domains.nano import (
    NanoDomain,
    check_critique,
    find_defects,
    parse_question,
    render_proof,
    score_of,
)
from proofloop.store import open_store
from proofloop.store.model_folders import version_folder
from proofloop_trainer.nano.claims import imperfect_claims
from proofloop_trainer.nano.demonstrations import render_critique
from proofloop_trainer.nano.evaluate import measure
from proofloop_trainer.nano.flaws import write_proof

HERE = Path(__file__).parent
SPLITS = ("train",) * 8 + ("validation", "test")


def make(
    folder: Path = HERE, *, problems: int = 3000, proofs: int = 2000, analyses: int = 2000
) -> None:
    """Write problems.jsonl, proofs.jsonl and analyses.jsonl."""
    rows = {
        "problems": _problems(problems),
        "proofs": _proofs(proofs),
        "analyses": itertools.islice(_analyses(), analyses),
    }
    for name, each in rows.items():
        (folder / f"{name}.jsonl").write_text(
            "".join(f"{json.dumps(row)}\n" for row in each), "utf-8"
        )


def _problems(count: int) -> Iterator[dict[str, Any]]:
    for question in dict.fromkeys(_question(number, seed=1) for number in range(count)):
        yield {"question": question}


def _proofs(count: int) -> Iterator[dict[str, Any]]:
    rng = random.Random("proofs")
    for number in range(count):
        question = _question(number, seed=2)
        chain = parse_question(question)
        if lines := write_proof(rng, chain, flawed_share=0.5):
            score = score_of(find_defects(chain, lines))
            yield {"question": question, "solution": render_proof(lines), "score": score}


def _analyses() -> Iterator[dict[str, Any]]:
    """Of hurried verifiers: some name what is not there, or give a score that does not follow."""
    rng = random.Random("analyses")
    for number in itertools.count():
        question = _question(number, seed=3)
        chain = parse_question(question)
        lines = write_proof(rng, chain, flawed_share=0.8)
        claims = imperfect_claims(rng, chain, lines)
        if not (lines and claims):
            continue
        score = rng.choice((0.0, 0.5)) if rng.random() < 0.25 else score_of(claims)
        solution, analysis = render_proof(lines), render_critique(claims, score)
        quality = check_critique(question, solution, analysis).quality
        if quality == 1 and rng.random() < 0.6:
            continue  # real claims are the most frequent
        yield {"question": question, "solution": solution, "analysis": analysis, "quality": quality}


def _question(number: int, seed: int) -> str:
    return NanoDomain().pose(number, split=SPLITS[number % len(SPLITS)], seed=seed).question


def check() -> None:
    """Print what the exact checker says of every generator, on test problems."""
    spec, settings = load_curriculum(HERE / "curriculum.toml"), load_settings()
    store = open_store(settings)
    versions = {"start": spec.start}
    for name, manifest in manifests(store, spec).items():
        if manifest.version and name.endswith(("generator", "consolidate")):
            versions[name] = manifest.version
    with tempfile.TemporaryDirectory() as cache:
        for name, version in versions.items():
            figures = measure(version_folder(store, Path(cache), version), problems=500)
            print(
                f"{name:14} Pass@1 {figures.pass_at_1:.3f}  error of its own scores"
                f" {figures.self_score_error:.3f}"
            )


if __name__ == "__main__":
    if sys.argv[1:] not in (["make"], ["check"]):
        sys.exit(__doc__)
    make() if sys.argv[1] == "make" else check()
