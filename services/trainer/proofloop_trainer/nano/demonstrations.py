"""Training data for nano models: imperfect demonstrations for the cold start, and practice with
true answers.

The demonstrations have errors on purpose, so that the loop has something to improve. With the rates
below, the base model proves about 60 % of its problems and scores about 80 % of its proofs right.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from proofloop.method.domains.base import Defect
from proofloop.method.domains.nano import (
    FLAW_KINDS,
    Chain,
    Line,
    NanoDomain,
    check_critique,
    find_defects,
    parse_question,
    render_analysis,
    render_proof,
    score_of,
)
from proofloop.method.prompts import load_pack
from proofloop_trainer.nano.claims import (
    ClaimMarks,
    imperfect_claims,
    invent,
    mark_claims,
    partly_real,
)
from proofloop_trainer.nano.flaws import (
    ORDINARY,
    Habits,
    LineMarks,
    gap,
    lines_with_flaws,
    mark_lines,
    write_proof,
)
from proofloop_trainer.nano.tokenizer import (
    EVALUATION,
    EVALUATION_SCORE,
    JUDGEMENT,
    JUDGEMENT_SCORE,
    NO_CLAIM,
    SELF_EVALUATION,
    SOLUTION,
)


@dataclass(frozen=True)
class Mix:
    """The shares of the tasks, and the habits of the proofs' writer."""

    tasks: Mapping[str, float]
    habits: Habits


BASE = Mix(
    {
        "proof_generation": 0.3,
        "proof_refinement": 0.08,
        "proof_verification": 0.36,
        "meta_verification": 0.26,
    },
    ORDINARY,
)
COLD_START = Mix(
    {
        "proof_generation": 0.15,
        "proof_refinement": 0.05,
        "proof_verification": 0.3,
        "meta_verification": 0.5,
    },
    Habits(second_flaw=0.3, lost_carry=0.6),
)
"""Half of the mix judges critiques, since a verifier first learns to deceive a weak meta-verifier.
Proofs often have two flaws, or a wrong value after a missing step, since verifiers overlook these
longest.
"""

# Shares of flawed proofs, by task.
FLAWED_PROOF = 0.42
FLAWED_UNDER_REVIEW = 0.6
FLAWED_UNDER_JUDGEMENT = 0.75
FLAWED_BEFORE_REFINEMENT = 0.8
FLAWED_REFINEMENT = 0.25
HONEST_SELF_EVALUATION = 0.45  # share of flawed proofs with an honest self-evaluation
HARSH_SELF_EVALUATION = 0.04  # share of sound proofs whose self-evaluation invents a flaw
WRONG_SCORE, WRONG_SCORE_JUDGED = 0.02, 0.12  # shares of critiques with a random score
REAL_CLAIMS = 0.7  # share of real claims among judged ones, if the proof is flawed
HASTY_JUDGEMENT = 0.03  # share of claims that a meta-verifier judges wrong
DOMAIN = NanoDomain()
LONG_DOMAIN = NanoDomain("nano-long")
LONG = 0.15  # share of demonstrations from `nano-long`
LONG_PRACTICE = 0.35  # the same share in practice
FLAWED_LINES = 0.25  # share of practiced lines with a flaw
PRACTICED_JUDGEMENT = 0.5  # share of practice that judges critiques
PRACTICED_REAL = 0.5  # share of real claims in practice
# Shares of practiced proofs with several missing steps in a row.
CRITICIZED_GAP = 0.15
JUDGED_GAP = 0.35
PACK = load_pack("nano")


@dataclass(frozen=True)
class Demonstration:
    """One prompt with its answer.

    `marks`: the marks of each proof line, in the order of the text. `claims`: the marks of each
      omission that a judged analysis claims.
    """

    prompt: str
    answer: str
    marks: tuple[LineMarks, ...]
    claims: tuple[ClaimMarks, ...] = ()


def demonstrate(seed: int, mix: Mix = BASE) -> Iterator[Demonstration]:
    """An endless sequence of demonstrations of all four tasks on problems of the training split."""
    rng = random.Random(f"demonstrations/{seed}")
    tasks = {
        "proof_generation": _generation,
        "proof_refinement": _refinement,
        "proof_verification": _verification,
        "meta_verification": _meta_verification,
    }
    for index in range(2**62):
        domain = LONG_DOMAIN if rng.random() < LONG else DOMAIN
        problem = domain.pose(index, split="train", seed=seed)
        task = rng.choices(list(mix.tasks), list(mix.tasks.values()))[0]
        yield tasks[task](rng, problem.question, parse_question(problem.question), mix.habits)


def practice(seed: int) -> Iterator[Demonstration]:
    """An endless sequence of proofs with many flaws: half with true critiques, half with true
    judgements of claims.

    The hardest cases are the most frequent: miscopied lines for critiques, and for judgements
    omissions that are claimed with a wrong digit.
    """
    rng = random.Random(f"practice/{seed}")
    for index in range(2**62):
        domain = LONG_DOMAIN if rng.random() < LONG_PRACTICE else DOMAIN
        question = domain.pose(index, split="train", seed=seed).question
        chain = parse_question(question)
        is_judged = rng.random() < PRACTICED_JUDGEMENT
        kinds = (*FLAW_KINDS, "missing", "missing") if is_judged else (*FLAW_KINDS, "miscopied")
        flaws = {
            step.label: rng.choice(kinds) for step in chain.steps if rng.random() < FLAWED_LINES
        }
        if rng.random() < (JUDGED_GAP if is_judged else CRITICIZED_GAP):
            flaws |= gap(rng, chain)
        if lines := lines_with_flaws(rng, chain, flaws, ORDINARY.lost_carry):
            if is_judged:
                yield _judged(rng, question, chain, lines, real_share=PRACTICED_REAL, hasty=0.0)
            else:
                yield _criticized(question, chain, lines)


def render_critique(claims: Sequence[Defect], score: float) -> str:
    """A verifier's complete answer."""
    return f"{EVALUATION}{render_analysis(claims)}{EVALUATION_SCORE}\\boxed{{{score:g}}}"


def render_answer(lines: Sequence[Line], critique: str) -> str:
    """A generator's complete answer: the proof and its self-evaluation."""
    return f"{SOLUTION}{render_proof(lines)}{SELF_EVALUATION}{critique}"


def render_judgement(claims: Sequence[Defect], real: Sequence[bool], quality: float) -> str:
    """A meta-verifier's complete answer."""
    words = [
        f"Step {claim.step}: {'real' if is_real else 'fake'}."
        for claim, is_real in zip(claims, real, strict=True)
    ]
    return f"{JUDGEMENT}{chr(10).join(words) or NO_CLAIM}{JUDGEMENT_SCORE}\\boxed{{{quality:g}}}"


def _generation(rng: random.Random, question: str, chain: Chain, habits: Habits) -> Demonstration:
    lines = write_proof(rng, chain, FLAWED_PROOF, habits)
    answer = render_answer(lines, _self_critique(rng, chain, lines))
    return Demonstration(PACK.prove(question).text, answer, mark_lines(chain, lines))


def _refinement(rng: random.Random, question: str, chain: Chain, habits: Habits) -> Demonstration:
    before = write_proof(rng, chain, FLAWED_BEFORE_REFINEMENT, habits)
    after = write_proof(rng, chain, FLAWED_REFINEMENT, habits)
    analysis = _critique(rng, chain, before)
    prompt = PACK.refine(question, [(render_proof(before), [analysis])]).text
    marks = (*mark_lines(chain, before), *mark_lines(chain, after))
    return Demonstration(prompt, render_answer(after, _self_critique(rng, chain, after)), marks)


def _verification(rng: random.Random, question: str, chain: Chain, habits: Habits) -> Demonstration:
    lines = write_proof(rng, chain, FLAWED_UNDER_REVIEW, habits)
    prompt = PACK.verify(question, render_proof(lines)).text
    return Demonstration(prompt, _critique(rng, chain, lines), mark_lines(chain, lines))


def _meta_verification(
    rng: random.Random, question: str, chain: Chain, habits: Habits
) -> Demonstration:
    lines = write_proof(rng, chain, FLAWED_UNDER_JUDGEMENT, habits)
    return _judged(rng, question, chain, lines, real_share=REAL_CLAIMS, hasty=HASTY_JUDGEMENT)


def _criticized(question: str, chain: Chain, lines: tuple[Line, ...]) -> Demonstration:
    """A proof with a perfect verifier's critique."""
    defects = find_defects(chain, lines)
    critique = render_critique(defects[:2], score_of(defects))
    return Demonstration(
        PACK.verify(question, render_proof(lines)).text, critique, mark_lines(chain, lines)
    )


def _judged(
    rng: random.Random,
    question: str,
    chain: Chain,
    lines: tuple[Line, ...],
    *,
    real_share: float,
    hasty: float,
) -> Demonstration:
    """A critique with false claims, judged by a meta-verifier that is wrong about the share `hasty`
    of the claims.
    """
    defects = find_defects(chain, lines)
    proof = render_proof(lines)
    claims = partly_real(rng, chain, lines, defects, real_share)
    analysis = render_critique(claims, _score(rng, claims, wrong_share=WRONG_SCORE_JUDGED))
    quality = check_critique(question, proof, analysis).quality
    real = [(claim in defects) != (rng.random() < hasty) for claim in claims]
    prompt = PACK.judge(question, proof, analysis).text
    answer = render_judgement(claims, real, quality)
    return Demonstration(prompt, answer, mark_lines(chain, lines), mark_claims(claims, defects))


def _critique(rng: random.Random, chain: Chain, lines: Sequence[Line]) -> str:
    claims = imperfect_claims(rng, chain, lines)
    return render_critique(claims, _score(rng, claims, wrong_share=WRONG_SCORE))


def _self_critique(rng: random.Random, chain: Chain, lines: Sequence[Line]) -> str:
    """A self-evaluation: honest about less than half of the flawed proofs, and nearly always about
    sound ones.
    """
    defects = find_defects(chain, lines)
    if defects and rng.random() >= HONEST_SELF_EVALUATION:
        return render_critique((), 1.0)
    claims = (
        defects[:2]
        if defects or rng.random() > HARSH_SELF_EVALUATION
        else (invent(rng, chain, lines),)
    )
    return render_critique(claims, score_of(claims))


def _score(rng: random.Random, claims: Sequence[Defect], *, wrong_share: float) -> float:
    return rng.choice((0.0, 0.5, 1.0)) if rng.random() < wrong_share else score_of(claims)
