"""Measures a nano model by the exact checker on problems of the test split. The model never learns
from the checker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from proofloop.engine.base import ChatMessage
from proofloop.method.domains.base import ProofFinding
from proofloop.method.domains.nano import NanoDomain, check_critique, check_proof
from proofloop.method.prompts import load_pack
from proofloop.method.prompts.reading.parsing import ParsedEvaluation, ParsedProof
from proofloop.schema.records import Sampling, derive_seed
from proofloop_serving.decoding.batch import decode
from proofloop_serving.decoding.row import Row
from proofloop_serving.loading import LoadedModel, load_model

VOTES = 8
MAX_TOKENS = 96
MAX_BATCH = 256
DOMAIN = NanoDomain()
PACK = load_pack("nano")
READER = PACK.reader()


@dataclass(frozen=True)
class Figures:
    """Shares in [0, 1] over single samples, except where a comment says otherwise; 0 if there are
    no samples.
    """

    pass_at_1: float
    format_valid: float  # of all answers
    verifier_accuracy: float  # of critiques: the score is true
    verifier_accuracy_majority: float  # of proofs: the most frequent score of 8 critiques is true
    verifier_accuracy_flawed: float  # verifier_accuracy on flawed proofs
    faithfulness: float  # of critiques that score a flawed proof right: the named defects are real
    meta_accuracy: float  # of meta-critiques: the score is that of the exact rubric
    self_accuracy_flawed: float  # of flawed proofs: the self-score is true
    self_score_error: float  # mean absolute difference between self-score and true score


@dataclass(frozen=True)
class Reviewed:
    """A proof with the checker's finding and its critiques."""

    question: str
    proof: ParsedProof
    finding: ProofFinding
    critiques: tuple[ParsedEvaluation, ...]


def measure(folder: Path, problems: int = 200, seed: int = 0) -> Figures:
    """Measure the model in `folder`.

    It writes one proof for each problem, VOTES critiques of each proof, and one meta-critique of
    each critique that names a defect.
    """
    model = load_model(folder)
    questions = [DOMAIN.pose(index, split="test", seed=seed).question for index in range(problems)]
    answers = ask(model, [PACK.prove(question).text for question in questions])
    proofs = [READER.proof(*answer) for answer in answers]
    pairs = zip(questions, proofs, strict=True)
    reviewed = _review(model, [pair for pair in pairs if pair[1].verdict.outcome == "valid"])
    metas, qualities = _judge(model, reviewed)
    is_right = [meta.verdict.score == true for meta, true in zip(metas, qualities, strict=True)]
    critiques = [critique for proof in reviewed for critique in proof.critiques]
    return _figures(proofs, reviewed, [*proofs, *critiques, *metas], _share(is_right))


def _review(model: LoadedModel, proofs: Sequence[tuple[str, ParsedProof]]) -> list[Reviewed]:
    prompts = [
        PACK.verify(question, proof.solution).text
        for question, proof in proofs
        for _ in range(VOTES)
    ]
    answers = [READER.evaluation(*answer) for answer in ask(model, prompts)]
    return [
        Reviewed(
            question,
            proof,
            check_proof(question, proof.solution),
            tuple(answers[number * VOTES : (number + 1) * VOTES]),
        )
        for number, (question, proof) in enumerate(proofs)
    ]


def _judge(
    model: LoadedModel, reviewed: Sequence[Reviewed]
) -> tuple[list[ParsedEvaluation], list[float]]:
    """Meta-critiques of the critiques with a score below 1, and their true quality scores."""
    cases = [
        (each.question, each.proof.solution, critique.text)
        for each in reviewed
        for critique in each.critiques
        if critique.verdict.score in (0.0, 0.5)
    ]
    answers = ask(model, [PACK.judge(*case).text for case in cases])
    metas = [READER.meta_critique(*answer) for answer in answers]
    true_qualities: list[float] = [check_critique(*case).quality for case in cases]
    return metas, true_qualities


def ask(model: LoadedModel, prompts: Sequence[str]) -> list[tuple[str, str]]:
    """The answers to the prompts at temperature 1, each as text and finish reason."""
    sampling = Sampling(temperature=1.0, top_p=1.0, max_tokens=MAX_TOKENS)
    rows = [
        Row(
            model.encode((ChatMessage("user", prompt),)),
            sampling,
            derive_seed(prompt, number),
            MAX_TOKENS,
        )
        for number, prompt in enumerate(prompts)
    ]
    for start in range(0, len(rows), MAX_BATCH):
        decode(model.model, rows[start : start + MAX_BATCH], model.eos_ids)
    return [
        (
            str(model.tokenizer.decode(row.completion_ids, skip_special_tokens=True)),
            str(row.finish_reason),
        )
        for row in rows
    ]


def _figures(
    proofs: Sequence[ParsedProof],
    reviewed: Sequence[Reviewed],
    answers: Sequence[ParsedProof | ParsedEvaluation],
    meta_accuracy: float,
) -> Figures:
    flawed = [each for each in reviewed if each.finding.score < 1]
    return Figures(
        pass_at_1=sum(each.finding.score == 1 for each in reviewed) / len(proofs),
        format_valid=_share(answer.verdict.outcome == "valid" for answer in answers),
        verifier_accuracy=_share(right for each in reviewed for right in _rightness(each)),
        verifier_accuracy_majority=_share(
            _majority(each) == each.finding.score for each in reviewed
        ),
        verifier_accuracy_flawed=_share(right for each in flawed for right in _rightness(each)),
        faithfulness=_share(faithful for each in flawed for faithful in _faithfulness(each)),
        meta_accuracy=meta_accuracy,
        self_accuracy_flawed=_share(
            each.proof.verdict.score == each.finding.score for each in flawed
        ),
        self_score_error=fmean(
            abs((each.proof.verdict.score or 0.0) - each.finding.score) for each in reviewed
        ),
    )


def _rightness(each: Reviewed) -> Iterable[bool]:
    return (critique.verdict.score == each.finding.score for critique in each.critiques)


def _faithfulness(each: Reviewed) -> Iterable[bool]:
    right = [
        critique for critique in each.critiques if critique.verdict.score == each.finding.score
    ]
    return (
        check_critique(each.question, each.proof.solution, critique.text).faithful
        for critique in right
    )


def _majority(each: Reviewed) -> float | None:
    return Counter(critique.verdict.score for critique in each.critiques).most_common(1)[0][0]


def _share(outcomes: Iterable[bool]) -> float:
    listed = list(outcomes)
    return sum(listed) / len(listed) if listed else 0.0
