"""Demonstrations as the tokens of one model: the prompt as an engine renders it, then the answer
with the token that ends it.
"""

from __future__ import annotations

from pathlib import Path

from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from proofloop.config.demonstration_file import Demonstration
from proofloop.engine.base import ChatMessage
from proofloop.errors import CallRefused, ConfigError
from proofloop.schema.records import Tokens
from proofloop.store.model_folders import whole_model
from proofloop_serving.calls import encode
from proofloop_serving.loading import context_length
from proofloop_trainer.checkpoint import reading_model


class RowTooLong(ConfigError):
    """A row has more tokens than the model's context."""


class Encoder:
    """Encodes demonstrations for the model in a folder. Raises ConfigError if it cannot be read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with reading_model(folder):
            self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
            self._longest = context_length(AutoConfig.from_pretrained(whole_model(folder)))

    def encode(self, demonstration: Demonstration) -> Tokens:
        """The tokens of a demonstration. Raises ConfigError that names its row."""
        origin = demonstration.origin
        turns = [ChatMessage(turn.role, turn.content) for turn in demonstration.prompt]
        try:
            prompt_ids = encode(self.tokenizer, turns)
        except CallRefused as error:
            raise ConfigError(
                f"{origin}: {error}", f"give a model with a chat template; {self._folder} is read"
            ) from error
        answer_ids = self.tokenizer.encode(demonstration.answer, add_special_tokens=False)
        tokens = Tokens(
            prompt_ids=tuple(prompt_ids), completion_ids=(*answer_ids, self._end()), logprobs=()
        )
        self._check_length(len(prompt_ids) + len(answer_ids) + 1, origin)
        return tokens

    def _end(self) -> int:
        end = self.tokenizer.eos_token_id
        if not isinstance(end, int):
            raise ConfigError(
                f"the tokenizer in {self._folder} has no eos_token, which ends an answer",
                "set eos_token in its tokenizer_config.json",
            )
        return end

    def _check_length(self, length: int, origin: str) -> None:
        if length > self._longest:
            raise RowTooLong(
                f"{origin} has {length} tokens, but the model in {self._folder} uses"
                f" at most {self._longest} positions",
                "shorten the row or leave it out",
            )
