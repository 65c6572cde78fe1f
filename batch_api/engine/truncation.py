"""Which tokens may be drawn: `min_p`, `top_k` and `top_p`, in this order, as in vLLM.

Each is a least weight that a token must have; the last is looked for among what the others leave.
"""

import torch

from batch_api.engine.sequence import SamplingOptions, Sequence

_LIKELY = 1024  # the nucleus is nearly always among so many tokens; a full sort costs 20 times that


def truncate(weights: torch.Tensor, sequences: list[Sequence]) -> torch.Tensor:
    """Zero the tokens that may not be drawn; weights: [sequences, vocab], 1 in sum."""
    rows = [row for row, each in enumerate(sequences) if _truncates(each.options)]
    if not rows:
        return weights
    floor = torch.zeros_like(weights[:, :1])
    floor[rows] = _least(weights[rows], [sequences[row].options for row in rows])
    return weights.where(weights >= floor, 0)


def _truncates(options: SamplingOptions) -> bool:
    return options.top_p < 1 or options.min_p > 0 or options.top_k > 0


def _least(weights: torch.Tensor, options: list[SamplingOptions]) -> torch.Tensor:
    """The least weight that may be drawn: [rows, 1]."""
    share = column([each.top_p for each in options], weights)
    longest = max(_LIKELY, *(each.top_k for each in options))
    likely = weights.topk(min(longest, weights.shape[-1]), dim=-1).values
    floor = torch.maximum(
        column([each.min_p for each in options], weights) * likely[:, :1],
        _of_rank(likely, [each.top_k for each in options]),
    )
    whole = share >= 1  # then rounding must not take a token
    left = weights.where(weights >= floor, 0).sum(dim=-1, keepdim=True).masked_fill(whole, 0)
    if bool((likely.sum(dim=-1, keepdim=True) < share * left).any()):
        likely = weights.sort(dim=-1, descending=True).values
    before = likely.cumsum(dim=-1) - likely
    kept = (before < share * left).sum(dim=-1, keepdim=True).clamp(min=1)  # a tiny share is 0
    return torch.maximum(floor, likely.gather(-1, kept - 1).masked_fill(whole, 0))


def _of_rank(likely: torch.Tensor, ranks: list[int]) -> torch.Tensor:
    """The weight of the token of that rank, counted from 1; 0 for the rank 0: [rows, 1]."""
    last = likely.shape[-1]
    places = column([max(1, min(rank, last)) - 1 for rank in ranks], likely).long()
    unlimited = column([rank == 0 for rank in ranks], likely).bool()
    return likely.gather(-1, places).masked_fill(unlimited, 0)


def column(values: list[float] | list[int] | list[bool], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).unsqueeze(-1)
