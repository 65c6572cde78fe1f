"""From the hidden states of a text's tokens to one vector, as sentence-transformers does it."""

from collections.abc import Callable

import torch

Poolings = tuple[str, ...]


def pool(hidden: torch.Tensor, mask: torch.Tensor, poolings: Poolings) -> torch.Tensor:
    """hidden: [rows, length, size], padded on the right; mask: [rows, length], 1 for a token →
    [rows, size * poolings], the results of several poolings one after the other.
    """
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return torch.cat([POOLINGS[name](hidden, weights) for name in poolings], dim=-1)


def _first(hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return hidden[:, 0]


def _last(hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    last = weights.sum(1).long().squeeze(-1) - 1
    return hidden[torch.arange(len(hidden), device=hidden.device), last]


def _max(hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return hidden.masked_fill(weights == 0, -torch.inf).amax(1)


def _mean(hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return (hidden * weights).sum(1) / weights.sum(1)


def _mean_by_root(hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return (hidden * weights).sum(1) / weights.sum(1).sqrt()


def _weighted_mean(hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """A token's weight is its position, from 1 (SGPT, arXiv 2202.08904)."""
    return _mean(hidden, weights * weights.cumsum(1))


# By sentence-transformers' names, in the order in which it joins several.
POOLINGS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "cls": _first,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_by_root,
    "weightedmean": _weighted_mean,
    "lasttoken": _last,
}
