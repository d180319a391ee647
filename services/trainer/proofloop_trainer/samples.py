"""Turns labeled proofs in the store into rewarded answers. Only reads the store; imports no torch.

A group of the generator holds the proofs of one problem; a group of the verifier, the critiques of
one proof. Answers without a reward (undecided proofs, failed model calls) are left out. Answers in
a wrong format stay with reward 0, so that the model unlearns them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from proofloop.config.run_file import RunSpec
from proofloop.method.rewards import Reward, generator_reward, verifier_reward
from proofloop.schema import keys
from proofloop.schema.records import (
    Critique,
    Judgement,
    Label,
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


@dataclass(frozen=True)
class RewardedAnswer:
    """An answer with its reward. Its tokens stay in the store until it is chosen for a batch."""

    key: str
    role: ModelRole
    group: str
    reward: float
    reward_parts: dict[str, float]
    provenance: Provenance

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
    """The answers to one prompt. `is_flawed`: they judge something with a grade below 1."""

    answers: tuple[RewardedAnswer, ...]
    is_flawed: bool = False

    @property
    def model_versions(self) -> set[str]:
        return {answer.provenance.model_version for answer in self.answers}

    @property
    def has_signal(self) -> bool:
        """Whether the rewards differ: otherwise all advantages are 0."""
        rewards = [answer.reward for answer in self.answers]
        return max(rewards) - min(rewards) > SIGNAL


def groups_of(role: ModelRole, labels: Iterable[Label], spec: RunSpec, store: Store) -> list[Group]:
    """The role's groups from the labeled proofs of one problem; groups of fewer than two answers
    are left out.
    """
    if role == "generator":
        groups = [Group(tuple(filter(None, (_proof(label, spec, store) for label in labels))))]
    else:
        groups = [_critiques(label, spec, store) for label in labels if label.score is not None]
    return [group for group in groups if len(group.answers) > 1]


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


def _proof(label: Label, spec: RunSpec, store: Store) -> RewardedAnswer | None:
    key = keys.proof(label.run_id, label.proof_id)
    proof = get_record(store, key, Proof)
    if label.outcome == "undecided" or not proof.provenance.tokens_key:
        return None
    reward = generator_reward(
        proof_score=label.score if label.score is not None else 0.0,
        self_score=proof.verdict.score,
        self_quality=label.self_quality,
        preset=spec.reward.preset,
        alpha=spec.reward.alpha,
        beta=spec.reward.beta,
    )
    return _answer("generator", key, label.group, reward, proof.provenance)


def _critiques(label: Label, spec: RunSpec, store: Store) -> Group:
    found = (_critique(label, index, spec, store) for index in range(spec.labeling.n))
    return Group(tuple(filter(None, found)), is_flawed=label.score != 1.0)


def _critique(label: Label, index: int, spec: RunSpec, store: Store) -> RewardedAnswer | None:
    """The reward of one critique; None if it was skipped because its proof was decided before."""
    key = keys.critique(label.run_id, label.proof_id, index)
    critique = find_record(store, key, Critique)
    judgement = find_record(store, keys.judgement(label.run_id, label.proof_id, index), Judgement)
    if (
        critique is None
        or judgement is None
        or label.score is None
        or not critique.provenance.tokens_key
    ):
        return None
    score = critique.verdict.score
    reward = verifier_reward(
        predicted=score,
        actual=label.score,
        meta_quality=judgement.quality if spec.reward.meta else None,
    )
    return _answer("verifier", key, label.proof_id, reward, critique.provenance, score)


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
