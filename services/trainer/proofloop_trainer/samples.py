"""Turns labeled proofs in the store into rewarded training samples. Only reads the store; imports
no torch.

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


@dataclass(frozen=True)
class Group:
    """The samples for one prompt. `is_flawed`: they are critiques of a proof with a label below
    1.
    """

    samples: tuple[TrainingSample, ...]
    is_flawed: bool = False

    @property
    def has_signal(self) -> bool:
        """Whether the rewards differ: otherwise all advantages are 0."""
        rewards = [sample.reward for sample in self.samples]
        return max(rewards) - min(rewards) > SIGNAL


def groups_of(role: ModelRole, labels: Iterable[Label], spec: RunSpec, store: Store) -> list[Group]:
    """The role's groups from the labeled proofs of one problem; groups of fewer than two samples
    are left out.
    """
    if role == "generator":
        groups = [
            Group(tuple(filter(None, (_proof_sample(label, spec, store) for label in labels))))
        ]
    else:
        groups = [_critiques(label, spec, store) for label in labels if label.score is not None]
    return [group for group in groups if len(group.samples) > 1]


def choose_groups(groups: Sequence[Group], most: int) -> list[Group]:
    """At most `most` groups with a signal, in order; half of them are about flawed proofs if there
    are enough.

    A verifier that sees mostly sound proofs learns to accept all.
    """
    flawed = [group for group in groups if group.has_signal and group.is_flawed]
    sound = [group for group in groups if group.has_signal and not group.is_flawed]
    enough = max(most // 2, most - len(sound))
    return [*flawed[:enough], *sound[: most - min(enough, len(flawed))]]


def _proof_sample(label: Label, spec: RunSpec, store: Store) -> TrainingSample | None:
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
    return _sample("generator", key, label.group, reward, proof.provenance, store)


def _critiques(label: Label, spec: RunSpec, store: Store) -> Group:
    found = (_critique_sample(label, index, spec, store) for index in range(spec.labeling.n))
    return Group(tuple(filter(None, found)), is_flawed=label.score != 1.0)


def _critique_sample(
    label: Label, index: int, spec: RunSpec, store: Store
) -> TrainingSample | None:
    """The sample of one critique; None if it was skipped because its proof was decided before."""
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
    reward = verifier_reward(
        predicted=critique.verdict.score,
        actual=label.score,
        meta_quality=judgement.quality if spec.reward.meta else None,
    )
    return _sample("verifier", key, label.proof_id, reward, critique.provenance, store)


def _sample(
    role: ModelRole,
    key: str,
    group: str,
    reward: Reward,
    provenance: Provenance,
    store: Store,
) -> TrainingSample:
    return TrainingSample(
        key=key,
        role=role,
        group=group,
        tokens=get_record(store, provenance.tokens_key, Tokens),
        reward=reward.total,
        reward_parts=reward.parts,
        model_version=provenance.model_version,
        truncated=provenance.finish_reason == "length",
    )


def mean_parts(samples: Sequence[TrainingSample]) -> dict[str, float]:
    """The mean of each reward factor over the samples that have it."""
    names = sorted({name for sample in samples for name in sample.reward_parts})
    return {
        name: fmean(sample.reward_parts[name] for sample in samples if name in sample.reward_parts)
        for name in names
    }
