"""Samples a token for each row of a batch, under temperature, top-k and top-p.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

import torch


def sample(
    logits_BV: torch.Tensor,
    temperature_B: torch.Tensor,
    top_p_B: torch.Tensor,
    uniforms_B: torch.Tensor,
    top_k_B: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample a token for each row by inverting the cumulative distribution at `uniforms_B`.

    Returns the tokens [B] and their log-probabilities [B] under the distribution that was sampled.
    """
    logits_BV = logits_BV.double() / temperature_B[:, None]
    if top_k_B is not None and bool((top_k_B > 0).any()):
        logits_BV = _likeliest(logits_BV, top_k_B)
    probabilities_BV = torch.softmax(logits_BV, dim=-1)
    if bool((top_p_B < 1).any()):
        probabilities_BV = _nucleus(probabilities_BV, top_p_B)
    cumulative_BV = probabilities_BV.cumsum(-1)
    reached_B1 = uniforms_B[:, None] * cumulative_BV[:, -1:]
    tokens_B1 = torch.searchsorted(cumulative_BV, reached_B1, right=True).clamp(
        max=logits_BV.shape[1] - 1
    )
    return tokens_B1[:, 0], probabilities_BV.gather(1, tokens_B1)[:, 0].log()


def _likeliest(logits_BV: torch.Tensor, top_k_B: torch.Tensor) -> torch.Tensor:
    """Keep the k best tokens of each row with a k; among equals, the first."""
    order_BV = logits_BV.argsort(dim=-1, descending=True, stable=True)
    limit_B1 = torch.where(top_k_B > 0, top_k_B, logits_BV.shape[1])[:, None]
    ranks_V = torch.arange(logits_BV.shape[1], device=logits_BV.device)
    is_out_BV = torch.zeros_like(logits_BV, dtype=torch.bool).scatter_(
        1, order_BV, ranks_V >= limit_B1
    )
    return logits_BV.masked_fill(is_out_BV, -torch.inf)


def _nucleus(probabilities_BV: torch.Tensor, top_p_B: torch.Tensor) -> torch.Tensor:
    """Keep the smallest set of the likeliest tokens whose probability reaches top_p, and
    renormalise.
    """
    ordered_BV, order_BV = probabilities_BV.sort(dim=-1, descending=True, stable=True)
    before_BV = ordered_BV.cumsum(-1) - ordered_BV
    ordered_BV = ordered_BV.masked_fill(before_BV >= top_p_B[:, None], 0.0)
    kept_BV = torch.zeros_like(probabilities_BV).scatter_(1, order_BV, ordered_BV)
    return kept_BV / kept_BV.sum(-1, keepdim=True)
