"""What a role's model answers, with what it earned: the four objectives of the method, from the judges to the samples.

verifier         R_format * R_score               eq. (2)
enhanced         R_format * R_score * R_meta      eq. (3), and the meta-verifier's on D_mv with it
meta-verifier    R_format * R_score               section 2.1.2
generator        R_format * (a R_Y + b R_Z)       eq. (5) and (6)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeVar

from proofloop.engine.base import Generation
from proofloop.errors import ConfigError
from proofloop.prompts import PromptPack
from proofloop.prompts.parsing import ParsedEvaluation, ParsedProof, parse_evaluation, parse_meta_critique, parse_proof
from proofloop.records import ModelRole, TrainingSample
from proofloop.rewards import Reward, generator_reward, meta_verifier_reward, verifier_reward
from proofloop_trainer.curriculum.asking import Asker
from proofloop_trainer.curriculum.graded import GradedAnalysis, GradedProof

SAID = "said"
"""The score that an answer gives, among the parts of its reward; it is no factor of it."""

Read = tuple[str, str, str]  # question, solution, analysis


Case = TypeVar("Case")
Parsed = TypeVar("Parsed", ParsedEvaluation, ParsedProof)


@dataclass(frozen=True)
class Judges:
    """The learned judges: `critiques` a proof, `metas` an analysis. No `meta`: nobody asks whether claims are real."""

    verifier: Asker | None
    meta: Asker | None
    pack: PromptPack
    critiques: int = 4
    metas: int = 3

    def qualities(self, analyses: Sequence[Read | None]) -> list[float | None]:
        """R_meta of each analysis that reports an issue: the mean of its meta-scores; 1 for None, which claims nothing.

        None for all when there is no meta-verifier. An analysis whose meta-critiques are all unreadable gets 0.
        """
        if self.meta is None:
            return [None] * len(analyses)
        asked = list(dict.fromkeys(analysis for analysis in analyses if analysis is not None))
        answers = self.meta.ask([self.pack.judge(*analysis).text for analysis in asked], times=self.metas)
        found = {analysis: _mean_score(group) for analysis, group in zip(asked, answers, strict=True)}
        return [1.0 if analysis is None else found[analysis] for analysis in analyses]

    def scores(self, proofs: Sequence[tuple[str, str] | None]) -> list[float]:
        """R_Y of each proof: the mean score of its readable critiques, 0 if there is none."""
        assert self.verifier is not None
        asked = list(dict.fromkeys(proof for proof in proofs if proof is not None))
        answers = self.verifier.ask([self.pack.verify(*proof).text for proof in asked], times=self.critiques)
        found = {}
        for proof, group in zip(asked, answers, strict=True):
            parsed = [parse_evaluation(answer.text, answer.finish_reason).verdict.score for answer in group]
            readable = [score for score in parsed if score is not None]
            found[proof] = fmean(readable) if readable else 0.0
        return [0.0 if proof is None else found[proof] for proof in proofs]


def verify(cases: Sequence[GradedProof], verifier: Asker, times: int, judges: Judges) -> list[TrainingSample]:
    """Groups of critiques on D_v, rewarded by the experts' score and, with a meta-verifier, by its word on them."""
    pack = judges.pack
    groups = verifier.ask([pack.verify(case.question, case.solution).text for case in cases], times)
    parsed = [[parse_evaluation(answer.text, answer.finish_reason) for answer in group] for group in groups]
    qualities = iter(
        judges.qualities(
            [
                (case.question, case.solution, each.text) if each.verdict.score in (0.0, 0.5) else None
                for case, group in zip(cases, parsed, strict=True)
                for each in group
            ]
        )
    )

    def reward(case: GradedProof, each: ParsedEvaluation) -> Reward:
        return verifier_reward(predicted=each.verdict.score, actual=case.score, meta_quality=next(qualities))

    return _samples("verifier", cases, groups, parsed, reward)


def meta_verify(cases: Sequence[GradedAnalysis], meta: Asker, times: int, pack: PromptPack) -> list[TrainingSample]:
    """Groups of meta-critiques on D_mv, rewarded by the experts' quality score of the analysis."""
    groups = meta.ask([pack.judge(case.question, case.solution, case.analysis).text for case in cases], times)
    parsed = [[parse_meta_critique(answer.text, answer.finish_reason) for answer in group] for group in groups]

    def reward(case: GradedAnalysis, each: ParsedEvaluation) -> Reward:
        return meta_verifier_reward(predicted=each.verdict.score, actual=case.quality)

    return _samples("meta_verifier", cases, groups, parsed, reward)


def prove(
    questions: Sequence[str], generator: Asker, times: int, judges: Judges, *, alpha: float, beta: float
) -> list[TrainingSample]:
    """Groups of proofs with their self-evaluations, rewarded by the learned judges alone."""
    groups = generator.ask([judges.pack.prove(question).text for question in questions], times)
    parsed = [[parse_proof(answer.text, answer.finish_reason) for answer in group] for group in groups]
    flat = [(question, each) for question, group in zip(questions, parsed, strict=True) for each in group]
    scores = judges.scores(
        [(question, each.solution) if each.verdict.score is not None else None for question, each in flat]
    )
    qualities = judges.qualities(
        [
            (question, each.solution, each.self_analysis) if each.verdict.score in (0.0, 0.5) else None
            for question, each in flat
        ]
    )
    rewards = [
        generator_reward(
            proof_score=score,
            self_score=each.verdict.score,
            self_quality=1.0 if quality is None else quality,
            alpha=alpha,
            beta=beta,
        )
        for (_, each), score, quality in zip(flat, scores, qualities, strict=True)
    ]
    remaining = iter(rewards)
    return _samples("generator", questions, groups, parsed, lambda question, each: next(remaining))


def _samples(
    role: ModelRole,
    cases: Sequence[Case],
    groups: Sequence[Sequence[Generation]],
    parsed: Sequence[Sequence[Parsed]],
    reward: Callable[[Case, Parsed], Reward],
) -> list[TrainingSample]:
    """One group a case, in order; of what the engine refused there is nothing to learn."""
    return [
        _sample(f"{role}-{place:04d}", number, answer, reward(case, each), each.verdict.score)
        for place, (case, group, readings) in enumerate(zip(cases, groups, parsed, strict=True))
        for number, (answer, each) in enumerate(zip(group, readings, strict=True))
        if answer.finish_reason != "cancelled"
    ]


def _sample(group: str, number: int, answer: Generation, reward: Reward, said: float | None) -> TrainingSample:
    """`said` is kept beside the reward's parts: what an answer claims, whatever it earned, is what is watched."""
    if answer.tokens is None:
        raise ConfigError("the engine gives no token ids with log-probabilities", "training needs both")
    return TrainingSample(
        key=f"{group}/{number:03d}",
        group=group,
        tokens=answer.tokens,
        reward=reward.total,
        reward_parts=reward.parts if said is None else {**reward.parts, SAID: said},
        model_version=answer.model_version,
        truncated=answer.finish_reason == "length",
    )


def _mean_score(answers: Sequence[Generation]) -> float:
    scores = [parse_meta_critique(answer.text, answer.finish_reason).verdict.score for answer in answers]
    readable = [score for score in scores if score is not None]
    return fmean(readable) if readable else 0.0
