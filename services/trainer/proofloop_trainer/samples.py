"""Turns labeled proofs in the store into rewarded answers. Only reads the store; imports no torch.

A group of the generator holds the proofs of one problem; a group of the verifier, the critiques of
one proof; a group of the meta-verifier, the meta-critiques of one given analysis. Answers without a
reward (undecided proofs, failed model calls, an unknown R_meta) are left out. Answers in a wrong
format stay with reward 0, so that the model unlearns them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from proofloop.config.run_file import RunSpec
from proofloop.method.rewards import Reward, generator_reward, meta_verifier_reward, verifier_reward
from proofloop.runs.answers import find_judgement
from proofloop.schema import keys
from proofloop.schema.records import (
    Critique,
    Label,
    MetaCritique,
    ModelRole,
    Proof,
    Provenance,
    Tokens,
    TrainingSample,
)
from proofloop.store import Store, find_record, get_record

SIGNAL = 1e-6
"""A group has a signal if its rewards differ by more than this."""

PREDICTED = "predicted_score"
"""The score that a judge's answer gives. It is stored with the reward's parts, but is no factor."""


GIVEN_ANALYSIS = 0
"""The index of the critique that was given with a proof."""


@dataclass(frozen=True)
class RewardedAnswer:
    """An answer with its reward. Its tokens stay in the store until it is chosen for a batch."""

    key: str
    role: ModelRole
    group: str
    reward: float
    reward_parts: dict[str, float]
    provenance: Provenance

    @property
    def is_failed(self) -> bool:
        """Whether the model call brought no answer."""
        provenance = self.provenance
        return provenance.is_sampled and not (provenance.tokens_key or provenance.finish_reason)

    def sample(self, store: Store) -> TrainingSample:
        """The answer with its tokens."""
        return TrainingSample(
            key=self.key,
            role=self.role,
            group=self.group,
            tokens=get_record(store, self.provenance.tokens_key, Tokens),
            reward=self.reward,
            reward_parts=self.reward_parts,
            model_version=self.provenance.model_version,
            truncated=self.provenance.finish_reason == "length",
        )


@dataclass(frozen=True)
class Group:
    """The answers to one prompt. `is_flawed`: they judge something with a grade below 1. `failed`:
    model calls without an answer.
    """

    answers: tuple[RewardedAnswer, ...]
    is_flawed: bool = False
    failed: int = 0

    @property
    def sampled(self) -> Group:
        """The group without answers whose tokens were not kept, such as failed calls."""
        kept = tuple(answer for answer in self.answers if answer.provenance.tokens_key)
        failed = sum(answer.is_failed for answer in self.answers)
        return replace(self, answers=kept, failed=failed)

    @property
    def model_versions(self) -> set[str]:
        return {answer.provenance.model_version for answer in self.answers}

    @property
    def has_signal(self) -> bool:
        """Whether the rewards differ: otherwise all advantages are 0."""
        rewards = [answer.reward for answer in self.answers]
        return max(rewards) - min(rewards) > SIGNAL


def groups_of(role: ModelRole, labels: Iterable[Label], spec: RunSpec, store: Store) -> list[Group]:
    """The groups from the labeled proofs of one problem that `role` may learn from, also those of
    which too many calls failed: see `large_enough`.
    """
    if role == "generator":
        proofs = (proof_answer(label, spec, store) for label in labels)
        groups = [Group(tuple(proof for proof in proofs if proof))]
    else:
        groups = [_judged(role, label, spec, store) for label in labels]
    return [group.sampled for group in groups if group.answers]


def large_enough(groups: Iterable[Group], role: ModelRole, spec: RunSpec) -> list[Group]:
    """The groups to learn from. A group of one answer counts only where all groups train."""
    least = 1 if spec.training.of(role).train_on == "all" else 2
    return [group for group in groups if len(group.answers) >= least]


def choose_groups(groups: Sequence[Group], most: int) -> list[Group]:
    """At most `most` groups with a signal, in order; half of them are about flawed proofs if there
    are enough.

    A verifier that sees mostly sound proofs learns to accept all.
    """
    useful = [group for group in groups if group.has_signal]
    flawed = sum(group.is_flawed for group in useful)
    most_flawed = max(most // 2, most - (len(useful) - flawed))
    left = {True: most_flawed, False: most - min(most_flawed, flawed)}
    chosen = []
    for group in useful:
        if left[group.is_flawed] > 0:
            left[group.is_flawed] -= 1
            chosen.append(group)
    return chosen


def proof_answer(label: Label, spec: RunSpec, store: Store) -> RewardedAnswer | None:
    """The generator's answer with its reward; None for an undecided proof, and for one whose R_meta
    is unknown though the reward needs it.
    """
    score = _proof_score(label, spec, store)
    is_unknown = label.self_quality is None and spec.reward.preset == "paper"
    if score is None or is_unknown:
        return None
    key = keys.proof(label.run_id, label.proof_id)
    proof = get_record(store, key, Proof)
    reward = generator_reward(
        proof_score=score,
        self_score=proof.verdict.score,
        self_quality=label.self_quality or 0.0,
        preset=spec.reward.preset,
        alpha=spec.reward.alpha,
        beta=spec.reward.beta,
    )
    return _answer("generator", key, label.group, reward, proof.provenance)


def _proof_score(label: Label, spec: RunSpec, store: Store) -> float | None:
    """R_Y of a proof; 0 for an unreadable one. None for an outranked one, for an undecided one
    without a mean, and for one whose judges' calls failed.
    """
    if label.outcome == "unreadable":
        return 0.0
    if label.outcome == "outranked":
        return None
    if spec.reward.proof_score == "label":
        return label.score
    found = (
        find_record(store, keys.critique(label.run_id, label.proof_id, index), Critique)
        for index in range(spec.labeling.n)
    )
    verdicts = [each.verdict for each in found if each]
    scores = [verdict.score for verdict in verdicts if verdict.score is not None]
    if scores:
        return fmean(scores)
    return None if any(verdict.outcome == "engine_failed" for verdict in verdicts) else 0.0


def _judged(role: ModelRole, label: Label, spec: RunSpec, store: Store) -> Group:
    """The critiques of a proof with a score, or the meta-critiques of a given analysis."""
    if label.score is not None:
        return critiques(label, spec, store) if role == "verifier" else Group(())
    quality = given_quality(label, store)
    if quality is None or role != spec.training.learner_of_analyses:
        return Group(())
    return meta_critiques(label, GIVEN_ANALYSIS, quality, store)


def given_quality(label: Label, store: Store) -> float | None:
    """The grade of a given analysis; None for other labels, and for an analysis without a grade."""
    if label.kind != "graded" or label.score is not None:
        return None
    given = get_record(store, keys.proof(label.run_id, label.proof_id), Proof).given
    return given.quality if given else None


def critiques(label: Label, spec: RunSpec, store: Store) -> Group:
    """The critiques of a proof with a score."""
    assert label.score is not None
    actual = label.score
    found = (_critique(label, actual, index, spec, store) for index in range(spec.labeling.n))
    return Group(tuple(filter(None, found)), is_flawed=actual < 1)


def _critique(
    label: Label, actual: float, index: int, spec: RunSpec, store: Store
) -> RewardedAnswer | None:
    """The reward of one critique; None if it was skipped because its proof was decided before, or
    if its R_meta is unknown and R_score is not 0, so that the reward needs it.
    """
    key = keys.critique(label.run_id, label.proof_id, index)
    critique = find_record(store, key, Critique)
    judgement = find_judgement(store, label.run_id, label.proof_id, index)
    if critique is None or judgement is None:
        return None
    score = critique.verdict.score
    quality = judgement.quality if spec.reward.meta else None
    reward = verifier_reward(predicted=score, actual=actual, meta_quality=quality)
    if spec.reward.meta and quality is None and reward.total:
        return None
    return _answer("verifier", key, label.proof_id, reward, critique.provenance, score)


def meta_critiques(label: Label, index: int, quality: float, store: Store) -> Group:
    """The meta-critiques of critique `index`, whose right quality is `quality`."""
    found = []
    for key in store.list(keys.meta_critiques(label.run_id, label.proof_id, index)):
        meta = get_record(store, key, MetaCritique)
        score = meta.verdict.score
        reward = meta_verifier_reward(predicted=score, actual=quality)
        group = f"{label.proof_id}/{index}"
        found.append(_answer("meta_verifier", key, group, reward, meta.provenance, score))
    return Group(tuple(found), is_flawed=quality < 1)


def _answer(
    role: ModelRole,
    key: str,
    group: str,
    reward: Reward,
    provenance: Provenance,
    predicted: float | None = None,
) -> RewardedAnswer:
    parts = reward.parts if predicted is None else {**reward.parts, PREDICTED: predicted}
    return RewardedAnswer(key, role, group, reward.total, parts, provenance)


def mean_parts(answers: Sequence[RewardedAnswer | TrainingSample]) -> dict[str, float]:
    """The mean of each reward factor over the answers that have it."""
    names = sorted({name for answer in answers for name in answer.reward_parts})
    return {
        name: fmean(answer.reward_parts[name] for answer in answers if name in answer.reward_parts)
        for name in names
    }
