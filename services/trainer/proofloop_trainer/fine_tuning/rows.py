"""The answers that a run's supervised training learns, as tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import structlog
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from proofloop.config.run_file import RunSpec
from proofloop.config.run_file.training import FineTuning
from proofloop.config.settings import load_settings
from proofloop.errors import ConfigError, NotFound
from proofloop.method.prompts import PromptPack
from proofloop.runs.fine_tuning.demonstrations import demonstrations_of
from proofloop.schema import keys
from proofloop.schema.records import ModelRole, Tokens
from proofloop.store import Store, get_record
from proofloop.store.model_folders import version_folder
from proofloop_trainer.checkpoint import reading_model
from proofloop_trainer.fine_tuning.best_answers import BestAnswer, best_answers
from proofloop_trainer.fine_tuning.encoding import Encoder, RowTooLong
from proofloop_trainer.fine_tuning.supervised import answer_to_learn
from proofloop_trainer.fine_tuning.texts import demonstration_of
from proofloop_trainer.grpo.batch import Answer

log = structlog.get_logger()

TEMPLATES: dict[ModelRole, tuple[str, ...]] = {
    "generator": ("proof_generation", "proof_refinement"),
    "verifier": ("proof_verification",),
    "meta_verifier": ("meta_verification",),
}


@dataclass(frozen=True)
class ToLearn:
    """The answers to learn. `of_role`: their number by role, if they come from runs."""

    answers: list[Answer]
    of_role: Counter[ModelRole]


def answers_to_learn(store: Store, spec: RunSpec, section: FineTuning, start: Path) -> ToLearn:
    """The run's answers, encoded for the model in `start`. Raises ConfigError that names a bad row,
    or if there are none.
    """
    encoder, of_role = Encoder(start), Counter[ModelRole]()
    if section.runs:
        rows = _of_runs(store, spec, section, encoder, of_role)
    else:
        rows = map(encoder.encode, demonstrations_of(store, spec.name))
    learned = [answer_to_learn(tokens) for tokens in rows if tokens.completion_ids]
    if not learned:
        raise ConfigError(f"run {spec.name!r} has no answers to learn from", _way_out(section))
    return ToLearn(learned, of_role)


def _way_out(section: FineTuning) -> str:
    if section.runs:
        return f"lower [fine_tuning] keep = {section.keep:g}, or name runs with better answers"
    return "give [fine_tuning] demonstrations with rows"


def _of_runs(
    store: Store, spec: RunSpec, section: FineTuning, encoder: Encoder, of_role: Counter[ModelRole]
) -> Iterator[Tokens]:
    reading = _Reading(store, spec, encoder)
    chosen, skipped = best_answers(store, section, spec.seed), 0
    for answer in chosen:
        tokens = reading.tokens(answer)
        if tokens is None:
            skipped += 1
        else:
            of_role[answer.role] += 1
            yield tokens
    log.info("best_answers_chosen", answers=len(chosen) - skipped, skipped=skipped)


class _Reading:
    """Reads chosen answers: sampled tokens where the trained model has the same tokens and prompts,
    else texts.
    """

    def __init__(self, store: Store, spec: RunSpec, encoder: Encoder) -> None:
        self._store, self._spec, self._encoder = store, spec, encoder
        self._pack = get_record(store, keys.prompts(spec.name), PromptPack)
        self._has_same_tokens = lru_cache(maxsize=None)(self._compare_tokens)

    def tokens(self, answer: BestAnswer) -> Tokens | None:
        """None for an answer that cannot be learned."""
        digests = map(self._pack.digest, TEMPLATES[answer.role])
        if (
            answer.tokens_key
            and answer.prompt_digest in digests
            and self._has_same_tokens(answer.model_version)
        ):
            return get_record(self._store, answer.tokens_key, Tokens)
        shown = demonstration_of(answer, self._pack, self._store)
        try:
            return self._encoder.encode(shown) if shown else None
        except RowTooLong as error:
            log.warning("best_answer_skipped", reason=error.problem)
            return None

    def _compare_tokens(self, version: str) -> bool:
        """Whether the version's tokenizer has the vocabulary, the chat template and the end of the
        trained model's: models of one family may differ in their system prompt alone.
        """
        try:
            folder = version_folder(self._store, load_settings().cache, version, self._spec.base)
        except NotFound:  # a version that was deleted
            return False
        if not (folder / "tokenizer_config.json").is_file():  # a model on a server
            return False
        with reading_model(folder):
            other = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        return _language(other) == _language(self._encoder.tokenizer)


def _language(tokenizer: PreTrainedTokenizerBase) -> tuple[object, ...]:
    return tokenizer.get_vocab(), tokenizer.chat_template, tokenizer.eos_token_id
