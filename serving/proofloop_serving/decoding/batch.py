"""Rows that one model is completing: they join a running batch and leave it when they end.

Shapes: B rows, T columns of the cache, V vocabulary, S steps of random numbers drawn ahead.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel

from proofloop_serving.decoding.kv_cache import (
    can_join,
    joined,
    new_cache,
    replace_rows,
    select_rows,
    trim_left,
)
from proofloop_serving.decoding.prompts import (
    PromptCache,
    ReadPrompts,
    forward,
    passes,
    read_prompts,
)
from proofloop_serving.decoding.routing import Recorder
from proofloop_serving.decoding.row import Row
from proofloop_serving.decoding.sampling import sample

GREEDY_TEMPERATURE = 1e-5  # used for temperature 0: all probability on the best token
STEPS_AHEAD = 64  # steps for which random numbers are drawn at once
STEPS_BETWEEN_JOINS = (
    8  # joining copies the whole cache, so a few rows wait this many steps to join a large batch
)

PER_ROW = ("logits_BV", "temperature_B", "top_p_B", "top_k_B", "uniforms_BS")
"""The tensors of a batch's state with one entry a row, beside the mask."""


@dataclass
class _State:
    """The model's state of the rows. Ended rows stay until dropping them is worth the copy of the
    cache.
    """

    rows: list[Row]
    cache: DynamicCache
    mask_BT: torch.Tensor
    logits_BV: torch.Tensor
    temperature_B: torch.Tensor
    top_p_B: torch.Tensor
    top_k_B: torch.Tensor
    uniforms_BS: torch.Tensor

    def places(self, *, ended: bool) -> list[int]:
        """The places of the ended rows, or of the running ones."""
        return [place for place, row in enumerate(self.rows) if bool(row.finish_reason) == ended]

    def unused_columns(self, places: Sequence[int]) -> int:
        """How many columns lie before the first token of these rows."""
        return int(self.mask_BT[places].any(0).to(torch.int8).argmax())

    def keep(self, places: Sequence[int]) -> None:
        index = torch.tensor(places, device=self.mask_BT.device)
        self.rows = [self.rows[place] for place in places]
        select_rows(self.cache, index)
        for name in ("mask_BT", *PER_ROW):
            setattr(self, name, getattr(self, name)[index])

    def replace(self, places: Sequence[int], new: _State) -> None:
        """Put new rows in the places of ended ones, without a copy of the others."""
        index = torch.tensor(places, device=self.mask_BT.device)
        for place, row in zip(places, new.rows, strict=True):
            self.rows[place] = row
        replace_rows(self.cache, index, new.cache)
        self.mask_BT[index] = _widened(new.mask_BT, self.mask_BT.shape[1])
        for name in PER_ROW:
            getattr(self, name)[index] = getattr(new, name)


class Batch:
    """The rows that one model is completing. For one thread."""

    def __init__(
        self,
        model: PreTrainedModel,
        eos_ids: frozenset[int],
        prompt_tokens_kept: int = 0,
        tokens_per_pass: int | None = None,
    ) -> None:
        """`prompt_tokens_kept`: size of the prompt cache. `tokens_per_pass`: limit of a forward
        pass over prompts.
        """
        self._model = model
        self._eos_ids = eos_ids
        self._recorder = Recorder(model)
        self._can_join = can_join(new_cache(model.config))
        # Prompts read apart have to be joined.
        self._tokens_per_pass = tokens_per_pass if self._can_join else None
        self.prompts = PromptCache(prompt_tokens_kept if self._can_join else 0)
        self._state: _State | None = None
        self._step = 0  # in the random numbers drawn ahead
        self._steps_since_join = 0

    @property
    def rows(self) -> list[Row]:
        """The rows that have not ended."""
        return [row for row in self._state.rows if row.finish_reason is None] if self._state else []

    def clear(self) -> None:
        self._state = None
        self._recorder.forget()

    def wants(self, waiting: int) -> bool:
        """Whether joining this many waiting rows now is worth the copy of the cache."""
        running = len(self.rows)
        if not running:
            return True
        if not self._can_join:
            return False
        return (
            waiting * STEPS_BETWEEN_JOINS >= running
            or self._steps_since_join >= STEPS_BETWEEN_JOINS
        )

    @torch.inference_mode()
    def join(self, rows: Sequence[Row]) -> None:
        """Read the prompts of these rows, each distinct prompt once, and add the rows to the
        batch.
        """
        began = time.perf_counter()
        state = self._state if self.rows else None
        if state is None:
            self._step = 0
        parts = self._read(rows)
        for places, read in parts:
            new = self._state_of([rows[place] for place in places], read)
            state = new if state is None else self._merged(state, new)
        self._state = state
        self._steps_since_join = 0
        seconds = (time.perf_counter() - began) / len(rows)
        for row in rows:
            row.seconds += seconds

    @torch.inference_mode()
    def step(self) -> list[Row]:
        """Sample a token for each row and read it. Returns the rows that ended with it."""
        if self._state is None:
            return []
        began = time.perf_counter()
        state = self._state
        running = self.rows
        if self._step == STEPS_AHEAD:
            state.uniforms_BS = _uniforms(state.rows, STEPS_AHEAD, self._model.device)
            self._step = 0
        tokens_B, logprobs_B = sample(
            state.logits_BV,
            state.temperature_B,
            state.top_p_B,
            state.uniforms_BS[:, self._step],
            state.top_k_B,
        )
        self._step += 1
        self._steps_since_join += 1
        for row, token, logprob in zip(
            state.rows, tokens_B.tolist(), logprobs_B.tolist(), strict=True
        ):
            row.take(token, logprob, self._eos_ids)
        self._advance(state, tokens_B)
        seconds = (time.perf_counter() - began) / len(running)
        for row in running:
            row.seconds += seconds
        return [row for row in running if row.finish_reason]

    def _advance(self, state: _State, tokens_B: torch.Tensor) -> None:
        """Read one more token of each row. Drops the ended rows first if they are at least half of
        all.
        """
        running = state.places(ended=False)
        if not running:
            self._state = None
            return
        if 2 * len(running) <= len(state.rows):
            state.keep(running)
            tokens_B = tokens_B[torch.tensor(running, device=tokens_B.device)]
        state.mask_BT = torch.cat([state.mask_BT, torch.ones_like(tokens_B)[:, None]], dim=1)
        state.logits_BV = forward(self._model, tokens_B[:, None], state.mask_BT, state.cache)
        if (experts_B1E := self._recorder.take(len(state.rows))) is not None:
            for row, (experts,) in zip(state.rows, experts_B1E.tolist(), strict=True):
                if row.finish_reason is None:
                    row.experts.append(tuple(experts))

    def _read(self, rows: Sequence[Row]) -> list[tuple[list[int], ReadPrompts]]:
        """Read the new prompts. Returns the readings with the places of the rows whose prompts they
        hold.
        """
        fresh = dict.fromkeys(
            row.prompt_ids for row in rows if self.prompts.find(row.prompt_ids) is None
        )
        newly_read = [
            read_prompts(self._model, prompts, self._recorder)
            for prompts in passes(list(fresh), self._tokens_per_pass)
        ]
        new = {prompt: read for read in newly_read for prompt in read.places}
        parts: dict[int, tuple[list[int], ReadPrompts]] = {}
        for place, row in enumerate(rows):
            read = self.prompts.find(row.prompt_ids) or new[row.prompt_ids]
            parts.setdefault(id(read), ([], read))[0].append(place)
            row.cached_tokens = 0 if row.prompt_ids in fresh else len(row.prompt_ids)
            fresh.pop(row.prompt_ids, None)
        for read in newly_read:
            self.prompts.add(read)
        return list(parts.values())

    def _state_of(self, rows: Sequence[Row], read: ReadPrompts) -> _State:
        """The state of the rows just after their prompts; does not change `read`."""
        device = self._model.device
        index = torch.tensor([read.places[row.prompt_ids] for row in rows], device=device)
        uniforms_BS = _uniforms(rows, STEPS_AHEAD - self._step, device)
        if read.experts_BTE is not None:
            for row in rows:
                experts_TE = read.experts_BTE[read.places[row.prompt_ids], -len(row.prompt_ids) :]
                row.experts = [tuple(experts) for experts in experts_TE.tolist()]
        return _State(
            rows=list(rows),
            cache=read.cache_of(index),
            mask_BT=read.mask_BT[index],
            logits_BV=read.logits_BV[index],
            temperature_B=torch.tensor(
                [max(row.sampling.temperature, GREEDY_TEMPERATURE) for row in rows], device=device
            ),
            top_p_B=torch.tensor(
                [row.sampling.top_p for row in rows], device=device, dtype=torch.float64
            ),
            top_k_B=torch.tensor([row.top_k for row in rows], device=device),
            uniforms_BS=torch.nn.functional.pad(uniforms_BS, (self._step, 0)),
        )

    def _merged(self, old: _State, new: _State) -> _State:
        """Both states together. The new rows take the places of ended ones if they fit there;
        otherwise the cache is copied, without ended rows and unused columns.
        """
        running, ended = old.places(ended=False), old.places(ended=True)
        unused = old.unused_columns(running)
        width, new_width = old.mask_BT.shape[1], new.mask_BT.shape[1]
        if len(new.rows) <= len(ended) and new_width <= width and 2 * unused <= width:
            old.replace(ended[: len(new.rows)], new)
            return old
        if ended:
            old.keep(running)
            trim_left(old.cache, unused)
            old.mask_BT = old.mask_BT[:, unused:]
        width = max(old.mask_BT.shape[1], new_width)
        mask_BT = torch.cat([_widened(each.mask_BT, width) for each in (old, new)])
        tensors = {name: torch.cat([getattr(old, name), getattr(new, name)]) for name in PER_ROW}
        return _State(old.rows + new.rows, joined(old.cache, new.cache), mask_BT, **tensors)


def _widened(mask_BT: torch.Tensor, width: int) -> torch.Tensor:
    """The mask with columns that are masked on the left."""
    return torch.nn.functional.pad(mask_BT, (width - mask_BT.shape[1], 0))


def decode(model: PreTrainedModel, rows: Sequence[Row], eos_ids: frozenset[int]) -> None:
    """Complete all rows in place."""
    batch = Batch(model, eos_ids)
    if rows:
        batch.join(rows)
    while batch.rows:
        batch.step()


def _uniforms(rows: Sequence[Row], steps: int, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.stack([row.draw(steps) for row in rows])).to(device)
