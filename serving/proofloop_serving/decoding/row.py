"""A row of a batch: one answer in progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from proofloop.engine.base import FinishReason
from proofloop.schema.records import Sampling


@dataclass(eq=False)
class Row:
    """One answer in progress. `seconds` is its share of the wall time of its steps.

    `ends` is called with each new token and returns the stop string that it completes, if any.
    """

    prompt_ids: tuple[int, ...]
    sampling: Sampling
    seed: int
    max_tokens: int
    is_cancelled: Callable[[], bool] = lambda: False
    top_k: int = 0  # 0: all tokens
    ends: Callable[[int], str | None] = lambda token: None
    cached_tokens: int = 0  # prompt tokens that were read before for another row
    completion_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    # Of all tokens but the last, which was never read.
    experts: list[tuple[int, ...]] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    stop_reason: str = ""
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self._uniforms = np.random.Generator(np.random.Philox(self.seed))

    def draw(self, steps: int) -> np.ndarray:
        """The row's next random numbers in [0, 1), shape [steps]."""
        return self._uniforms.random(steps)

    def take(self, token: int, logprob: float, eos_ids: frozenset[int]) -> None:
        """Add a token and end the row if there is a reason to. Does nothing if the row has
        ended.
        """
        if self.finish_reason:
            return
        self.completion_ids.append(token)
        self.logprobs.append(logprob)
        if token in eos_ids:
            self.finish_reason = "stop"
        elif stop := self.ends(token):
            self.finish_reason = "stop"
            self.stop_reason = stop
        elif len(self.completion_ids) >= self.max_tokens:
            self.finish_reason = "length"
        elif self.is_cancelled():
            self.finish_reason = "cancelled"
