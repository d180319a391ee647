"""The best proofs of a run as a Markdown document."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from proofloop.cli.runs.exported import ExportedCritique, ExportedProof


def as_markdown(
    run: str, rows: Iterable[ExportedProof], text: Callable[[str], str] = str
) -> Iterator[str]:
    """The parts of a Markdown document. `text` changes the models' texts; by default they stand as
    written.
    """
    yield f"# The best proofs of {run}\n"
    for row in rows:
        yield f"\n## Problem {row.problem}\n\n{text(row.question)}\n"
        yield f"\n### Proof {row.proof}\n\n*{result_of(row)}*\n\n{text(row.solution)}\n"
        for critique in row.critiques or ():
            yield f"\n### {heading_of(critique)}\n\n{text(critique.analysis)}\n"


def result_of(row: ExportedProof) -> str:
    """The label, critiques and origin of a proof in one line."""
    score = "" if row.score is None else f", score {row.score:g} by {row.by}"
    self_score = "none" if row.self_score is None else f"{row.self_score:g}"
    facts = [
        f"{row.outcome or 'not labeled yet'}{score}",
        f"{row.critiques_passed} of {row.critiques_read} critiques passed it",
        f"self-score {self_score}",
        *([f"refines {', '.join(row.refines)}"] if row.refines else ()),
        *([f"model {row.model}"] if row.model else ()),
    ]
    return "; ".join(facts)


def heading_of(critique: ExportedCritique) -> str:
    """The number, score and judgement of a critique."""
    if critique.score is None:
        return f"Critique {critique.critique}: unreadable"
    judged = {None: "", True: ", confirmed", False: ", not confirmed"}[critique.confirmed]
    return f"Critique {critique.critique}: score {critique.score:g}{judged}"
