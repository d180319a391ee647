"""From training samples to padded tensors: advantages, the choice of answers, and the split of
minibatches into passes.

An answer without a loss still counts in its group's mean. The split into passes never changes a
minibatch's loss.

Legend: B sequences, P an answer's prompt tokens, C its completion tokens, T positions of prompt and
completion (padded on the right), E a token's experts over all layers.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from proofloop.errors import ProofloopError
from proofloop.schema.records import Tokens, TrainingSample, derive_seed
from proofloop_trainer import ranks
from proofloop_trainer.replay import FREE

T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """One answer with a loss. `sampler_logprobs_C` are the sampler's log-probabilities, never
    recomputed.
    """

    prompt_ids_P: Tensor
    completion_ids_C: Tensor
    sampler_logprobs_C: Tensor
    advantage: float
    reference_logprobs_C: Tensor | None = None
    experts_TE: Tensor | None = None  # of all tokens but the last

    @property
    def length(self) -> int:
        return len(self.prompt_ids_P) + len(self.completion_ids_C)


@dataclass(frozen=True)
class Pass:
    """A padded batch for one forward pass. The mask is 1 on completion tokens; other tokens have
    log-probabilities of 0.
    """

    ids_BT: Tensor
    completion_mask_BT: Tensor
    sampler_logprobs_BT: Tensor
    reference_logprobs_BT: Tensor | None
    advantages_B: Tensor
    experts_BTE: Tensor | None = None  # FREE where nothing was recorded


def advantages(samples: Sequence[TrainingSample]) -> list[float]:
    """A = R - mean(R) over the sample's group, not divided by the standard deviation; exactly 0 if
    all R are equal.
    """
    baselines = {group: _baseline(rewards) for group, rewards in rewards_by_group(samples).items()}
    return [sample.reward - baselines[sample.group] for sample in samples]


def rewards_by_group(samples: Iterable[TrainingSample]) -> dict[str, list[float]]:
    """The rewards of each group, in the order of the samples."""
    groups: dict[str, list[float]] = defaultdict(list)
    for sample in samples:
        groups[sample.group].append(sample.reward)
    return dict(groups)


def _baseline(rewards: list[float]) -> float:
    # The mean of equal floats may differ from them by rounding.
    return rewards[0] if min(rewards) == max(rewards) else fmean(rewards)


def groups_without_signal(samples: Iterable[TrainingSample]) -> set[str]:
    """The groups whose rewards are all equal, so that all advantages are 0."""
    return {
        group
        for group, rewards in rewards_by_group(samples).items()
        if min(rewards) == max(rewards)
    }


def answers_to_train(
    samples: Sequence[TrainingSample], truncated: Literal["train", "mask"]
) -> list[Answer]:
    """The answers with a loss: in a group with a signal, not empty, and not masked as truncated."""
    without_signal = groups_without_signal(samples)
    answers = []
    for sample, advantage in zip(samples, advantages(samples), strict=True):
        is_masked = sample.truncated and truncated == "mask"
        has_loss = sample.group not in without_signal and not is_masked
        if has_loss and sample.tokens.completion_ids:
            answers.append(answer_of(sample.tokens, advantage))
    return answers


def check_samples(samples: Sequence[TrainingSample], vocabulary: int) -> None:
    """Raise ProofloopError for an empty batch or an invalid sample. `vocabulary`: the model's
    number of token ids.
    """
    if not samples:
        raise ProofloopError("the training batch has no samples")
    for sample in samples:
        if problem := _problem(sample, vocabulary):
            raise ProofloopError(f"training sample {sample.key!r} {problem}")


def _problem(sample: TrainingSample, vocabulary: int) -> str | None:
    tokens = sample.tokens
    if not tokens.prompt_ids:
        return "has no prompt tokens"
    if len(tokens.logprobs) != len(tokens.completion_ids):
        return (
            f"has {len(tokens.completion_ids)} completion tokens and {len(tokens.logprobs)}"
            " log-probabilities"
        )
    if not all(map(math.isfinite, (sample.reward, *tokens.logprobs))):
        return "has a reward or a log-probability that is not a finite number"
    if (
        tokens.routed_experts
        and len(tokens.routed_experts) != len(tokens.prompt_ids) + len(tokens.completion_ids) - 1
    ):
        return (
            f"has routed experts of {len(tokens.routed_experts)} tokens; all tokens but the last"
            " must have them"
        )
    highest = max((*tokens.prompt_ids, *tokens.completion_ids))
    return (
        f"has token id {highest}, but the model has {vocabulary} tokens"
        if highest >= vocabulary
        else None
    )


def answer_of(tokens: Tokens, advantage: float = 0.0) -> Answer:
    """The sampled tokens as tensors. Only GRPO steps use the advantage."""
    return Answer(
        prompt_ids_P=torch.tensor(tokens.prompt_ids),
        completion_ids_C=torch.tensor(tokens.completion_ids),
        sampler_logprobs_C=torch.tensor(tokens.logprobs, dtype=torch.float32),
        advantage=advantage,
        experts_TE=torch.tensor(tokens.routed_experts) if tokens.routed_experts else None,
    )


def minibatches(answers: Sequence[T], most: int, *seed_parts: object) -> list[list[T]]:
    """Shuffle the answers by seed and split them into parts of at most `most`, whose sizes differ
    by at most one.
    """
    if not answers:
        return []
    generator = torch.Generator().manual_seed(derive_seed(*seed_parts))
    order = torch.randperm(len(answers), generator=generator)
    # A small last part would change the weights as much as a full one, from far fewer answers.
    parts = order.tensor_split(math.ceil(len(answers) / most))
    return [[answers[i] for i in part.tolist()] for part in parts]


def by_length(answers: Iterable[Answer]) -> list[Answer]:
    """The answers sorted by length, shortest first; the sort is stable."""
    return sorted(answers, key=lambda answer: answer.length)


def share(answers: Iterable[Answer], most_tokens: int) -> list[list[Answer]]:
    """The passes of this process. All processes have the same number, since all join in each; some
    may be empty.
    """
    ordered = by_length(answers)
    cuts = [passes(ranks.share(ordered, to), most_tokens) for to in range(ranks.count())]
    mine = cuts[ranks.rank()]
    return [*mine, *([[]] * (max(map(len, cuts)) - len(mine)))]


def passes(answers: Iterable[Answer], most_tokens: int) -> list[list[Answer]]:
    """Split the answers by length so that no padded pass exceeds `most_tokens`; a longer answer is
    a pass alone.
    """
    cut: list[list[Answer]] = []
    for answer in by_length(answers):
        if cut and (len(cut[-1]) + 1) * answer.length <= most_tokens:
            cut[-1].append(answer)
        else:
            cut.append([answer])
    return cut


def collate(answers: Sequence[Answer]) -> Pass:
    """Pad the answers and move them to this process's device as one Pass."""
    device = ranks.device()
    prompts = [answer.prompt_ids_P for answer in answers]
    completions = [answer.completion_ids_C for answer in answers]
    unscored = [torch.zeros(len(ids)) for ids in prompts]
    references = [a.reference_logprobs_C for a in answers if a.reference_logprobs_C is not None]
    sampler = [answer.sampler_logprobs_C for answer in answers]
    experts_BTE = _experts(answers)
    return Pass(
        ids_BT=_padded(prompts, completions).to(device),
        completion_mask_BT=_padded(unscored, map(torch.ones_like, completions)).to(device),
        sampler_logprobs_BT=_padded(unscored, sampler).to(device),
        reference_logprobs_BT=_padded(unscored, references).to(device) if references else None,
        advantages_B=torch.tensor([answer.advantage for answer in answers], device=device),
        experts_BTE=None if experts_BTE is None else experts_BTE.to(device),
    )


def _experts(answers: Sequence[Answer]) -> Tensor | None:
    """The recorded experts at the positions of their tokens."""
    widths = {answer.experts_TE.size(1) for answer in answers if answer.experts_TE is not None}
    if len(widths) != 1:  # no experts were recorded, or different models recorded them
        return None
    width = widths.pop()
    experts_BTE = torch.full((len(answers), max(answer.length for answer in answers), width), FREE)
    for row_TE, answer in zip(experts_BTE, answers, strict=True):
        if answer.experts_TE is not None:
            row_TE[: len(answer.experts_TE)] = answer.experts_TE
    return experts_BTE


def _padded(prompts: Iterable[Tensor], completions: Iterable[Tensor]) -> Tensor:
    """Each prompt's values with its completion's, padded with 0."""
    rows = [torch.cat(pair) for pair in zip(prompts, completions, strict=True)]
    return pad_sequence(rows, batch_first=True)
