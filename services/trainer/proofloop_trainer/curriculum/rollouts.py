"""What a role's model answers, with what it earned: the four objectives of the method, from the
judges to the samples.

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

from proofloop.config.given_files import GradedAnalysis, GradedProof
from proofloop.engine.base import Generation
from proofloop.errors import ConfigError
from proofloop.method.prompts import PromptPack
from proofloop.method.prompts.reading.parsing import ParsedEvaluation, ParsedProof, Reader
from proofloop.method.rewards import Reward, generator_reward, meta_verifier_reward, verifier_reward
from proofloop.schema.records import ModelRole, TrainingSample
from proofloop_trainer.curriculum.asking import Asker

PREDICTED = "predicted_score"
"""The score that an answer predicts. It is stored with the reward's parts, but is not a factor."""

Read = tuple[str, str, str]  # question, solution, analysis


Case = TypeVar("Case")
Parsed = TypeVar("Parsed", ParsedEvaluation, ParsedProof)


@dataclass(frozen=True)
class Judges:
    """The learned judges: `critiques` a proof, `metas` an analysis. Without `meta`, claims
    are not checked.
    """

    verifier: Asker | None
    meta: Asker | None
    pack: PromptPack
    critiques: int = 4
    metas: int = 3

    def qualities(self, analyses: Sequence[Read | None]) -> list[float | None]:
        """R_meta of each analysis that reports an issue: the mean of its meta-scores; 1 for None,
        which claims nothing.

        None for all when there is no meta-verifier. An analysis whose meta-critiques are all
        unreadable gets 0.
        """
        if self.meta is None:
            return [None] * len(analyses)
        asked = list(dict.fromkeys(analysis for analysis in analyses if analysis is not None))
        answers = self.meta.ask(
            [self.pack.judge(*analysis).text for analysis in asked], times=self.metas
        )
        found = {
            analysis: _mean_score(group, self.pack.reader())
            for analysis, group in zip(asked, answers, strict=True)
        }
        return [1.0 if analysis is None else found[analysis] for analysis in analyses]

    def scores(self, proofs: Sequence[tuple[str, str] | None]) -> list[float]:
        """R_Y of each proof: the mean score of its readable critiques, 0 if there is none."""
        assert self.verifier is not None
        asked = list(dict.fromkeys(proof for proof in proofs if proof is not None))
        answers = self.verifier.ask(
            [self.pack.verify(*proof).text for proof in asked], times=self.critiques
        )
        found, read = {}, self.pack.reader().evaluation
        for proof, group in zip(asked, answers, strict=True):
            parsed = [read(answer.text, answer.finish_reason).verdict.score for answer in group]
            readable = [score for score in parsed if score is not None]
            found[proof] = fmean(readable) if readable else 0.0
        return [0.0 if proof is None else found[proof] for proof in proofs]


def verify(
    cases: Sequence[GradedProof], verifier: Asker, times: int, judges: Judges
) -> list[TrainingSample]:
    """Groups of critiques on D_v, rewarded by the experts' score and, with a meta-verifier, by its
    word on them.
    """
    groups = verifier.ask(
        [judges.pack.verify(case.question, case.solution).text for case in cases], times
    )
    read = answered(cases, groups, judges.pack.reader().evaluation)
    qualities = judges.qualities(
        [
            (case.question, case.solution, each.text) if each.verdict.score in (0.0, 0.5) else None
            for case, each in read
        ]
    )
    rewards = [
        verifier_reward(predicted=each.verdict.score, actual=case.score, meta_quality=quality)
        for (case, each), quality in zip(read, qualities, strict=True)
    ]
    return _samples("verifier", groups, [each.verdict.score for _, each in read], rewards)


def meta_verify(
    cases: Sequence[GradedAnalysis], meta: Asker, times: int, pack: PromptPack
) -> list[TrainingSample]:
    """Groups of meta-critiques on D_mv, rewarded by the experts' quality score of the analysis."""
    groups = meta.ask(
        [pack.judge(case.question, case.solution, case.analysis).text for case in cases], times
    )
    read = answered(cases, groups, pack.reader().meta_critique)
    rewards = [
        meta_verifier_reward(predicted=each.verdict.score, actual=case.quality)
        for case, each in read
    ]
    return _samples("meta_verifier", groups, [each.verdict.score for _, each in read], rewards)


def prove(
    questions: Sequence[str],
    generator: Asker,
    times: int,
    judges: Judges,
    *,
    alpha: float,
    beta: float,
) -> list[TrainingSample]:
    """Groups of proofs with their self-evaluations, rewarded by the learned judges alone."""
    groups = generator.ask([judges.pack.prove(question).text for question in questions], times)
    read = answered(questions, groups, judges.pack.reader().proof)
    scores = judges.scores(
        [
            (question, each.solution) if each.verdict.score is not None else None
            for question, each in read
        ]
    )
    qualities = judges.qualities(
        [
            (question, each.solution, each.self_analysis)
            if each.verdict.score in (0.0, 0.5)
            else None
            for question, each in read
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
        for (_, each), score, quality in zip(read, scores, qualities, strict=True)
    ]
    return _samples("generator", groups, [each.verdict.score for _, each in read], rewards)


def answered(
    cases: Sequence[Case],
    groups: Sequence[Sequence[Generation]],
    parse: Callable[[str, str], Parsed],
) -> list[tuple[Case, Parsed]]:
    """Every answer as it was read, with its case; also those that the engine refused, so that
    nothing shifts.
    """
    return [
        (case, parse(answer.text, answer.finish_reason))
        for case, group in zip(cases, groups, strict=True)
        for answer in group
    ]


def _samples(
    role: ModelRole,
    groups: Sequence[Sequence[Generation]],
    predicted: Sequence[float | None],
    rewards: Sequence[Reward],
) -> list[TrainingSample]:
    """One group for each case, in order, without the answers that the engine refused."""
    answers = [
        (f"{role}-{place:04d}", number, answer)
        for place, group in enumerate(groups)
        for number, answer in enumerate(group)
    ]
    return [
        _sample(role, group, number, answer, reward, score)
        for (group, number, answer), score, reward in zip(answers, predicted, rewards, strict=True)
        if answer.finish_reason != "cancelled"
    ]


def _sample(
    role: ModelRole,
    group: str,
    number: int,
    answer: Generation,
    reward: Reward,
    predicted: float | None,
) -> TrainingSample:
    """The sample of an answer. The watch reads its predicted score."""
    if answer.tokens is None:
        raise ConfigError(
            "the engine returns no token ids with log-probabilities, which training needs",
            'use an engine that returns both, such as "local"',
        )
    return TrainingSample(
        key=f"{group}/{number:03d}",
        role=role,
        group=group,
        tokens=answer.tokens,
        reward=reward.total,
        reward_parts=reward.parts if predicted is None else {**reward.parts, PREDICTED: predicted},
        model_version=answer.model_version,
        truncated=answer.finish_reason == "length",
    )


def _mean_score(answers: Sequence[Generation], reader: Reader) -> float:
    scores = [
        reader.meta_critique(answer.text, answer.finish_reason).verdict.score for answer in answers
    ]
    readable = [score for score in scores if score is not None]
    return fmean(readable) if readable else 0.0
