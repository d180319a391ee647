"""The best answers of runs: accepted proofs, upheld critiques, and judgements that agree.

An answer is chosen by its reward, as the trainer computes it. Few critiques have a grade: without
one, a judgement is right if all judgements of the same critique agree.

A chosen answer keeps its sampled tokens if the model to train has the same tokenizer and prompts.
Otherwise its text is encoded, with the prompt of the training run's pack: so a model can learn
from another one.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from proofloop.config.run_file import RunSpec
from proofloop.config.run_file.training import FineTuning
from proofloop.runs.answers import find_judgement
from proofloop.runs.labels import labels_of
from proofloop.runs.spec import get_spec
from proofloop.schema.ids import SELF_CRITIQUE
from proofloop.schema.records import MODEL_ROLES, Label, ModelRole, derive_seed
from proofloop.store import Store
from proofloop_trainer.samples import (
    GIVEN_ANALYSIS,
    Group,
    RewardedAnswer,
    critiques,
    given_quality,
    meta_critiques,
    proof_answer,
)


@dataclass(frozen=True)
class BestAnswer:
    """A chosen answer of a run: the keys of its record and of its sampled tokens."""

    role: ModelRole
    run_id: str
    key: str
    tokens_key: str
    model_version: str
    prompt_digest: str


def best_answers(store: Store, section: FineTuning, seed: int) -> list[BestAnswer]:
    """The answers with a reward of at least `keep`, by role, then in the order of runs, cases and
    numbers; for each role the answers to at most `most` prompts, drawn by the seed.
    """
    prompts: dict[ModelRole, dict[str, list[BestAnswer]]] = {
        role: defaultdict(list) for role in MODEL_ROLES
    }
    for run_id, roles in section.sources:
        for answer in _sampled_answers(store, run_id, roles):
            if answer.reward >= section.keep:
                prompts[answer.role][f"{run_id}/{answer.group}"].append(_best(run_id, answer))
    return [
        answer
        for role, found in prompts.items()
        for prompt in _drawn(list(found), section.most, derive_seed(seed, "best_answers", role))
        for answer in found[prompt]
    ]


def _sampled_answers(
    store: Store, run_id: str, roles: Sequence[ModelRole]
) -> Iterator[RewardedAnswer]:
    """The rewarded answers of a run that a model gave."""
    spec = get_spec(store, run_id)
    for label in labels_of(store, run_id):
        for group in _groups(label, roles, spec, store):
            yield from (answer for answer in group.answers if answer.provenance.is_sampled)


def _drawn(prompts: list[str], most: int, seed: int) -> list[str]:
    """At most `most` of the prompts, in their order."""
    if len(prompts) <= most:
        return prompts
    places = sorted(random.Random(seed).sample(range(len(prompts)), most))
    return [prompts[place] for place in places]


def _best(run_id: str, answer: RewardedAnswer) -> BestAnswer:
    provenance = answer.provenance
    return BestAnswer(
        role=answer.role,
        run_id=run_id,
        key=answer.key,
        tokens_key=provenance.tokens_key,
        model_version=provenance.model_version,
        prompt_digest=provenance.prompt_digest,
    )


def _groups(
    label: Label, roles: Sequence[ModelRole], spec: RunSpec, store: Store
) -> Iterator[Group]:
    if "generator" in roles and (proof := proof_answer(label, spec, store)):
        yield Group((proof,))
    if "verifier" in roles and label.score is not None:
        yield critiques(label, spec, store)
    if "meta_verifier" in roles:
        yield from _judgements(label, spec, store)


def _judgements(label: Label, spec: RunSpec, store: Store) -> Iterator[Group]:
    """The meta-critiques of a given analysis, or of all critiques that report an issue. Of an
    undecided proof none: its judges contradict each other.
    """
    if (quality := given_quality(label, store)) is not None:
        yield meta_critiques(label, GIVEN_ANALYSIS, quality, store)
    elif label.score is not None:
        for index in range(SELF_CRITIQUE, spec.labeling.n):
            judgement = find_judgement(store, label.run_id, label.proof_id, index)
            if judgement is None or judgement.confirmed is None or judgement.quality is None:
                continue
            yield meta_critiques(label, index, judgement.quality, store)
