"""From logits to tokens: one batched call, and no row depends on its neighbours."""

import torch

from batch_api.engine.sequence import Sequence

_LIKELY = 1024  # the nucleus is nearly always among so many tokens; a full sort costs 20 times that


def sample(logits: torch.Tensor, sequences: list[Sequence]) -> list[int]:
    """One token for each row; logits: [sequences, vocab]."""
    tokens = logits.float().argmax(dim=-1)  # four times as fast as in bf16 on a CPU
    drawn = [row for row, sequence in enumerate(sequences) if not sequence.is_greedy]
    if drawn:
        rows = torch.tensor(drawn, device=logits.device)
        tokens[rows] = _draw(logits[rows].float(), [sequences[row] for row in drawn])
    return [int(token) for token in tokens.tolist()]


def _draw(logits: torch.Tensor, sequences: list[Sequence]) -> torch.Tensor:
    """Invert the cumulative distribution at each sequence's own uniform number: [sequences]."""
    temperature = _column([sequence.options.temperature for sequence in sequences], logits)
    logits = logits - logits.amax(dim=-1, keepdim=True)
    weights = (logits / temperature.clamp(min=1e-6)).softmax(dim=-1)
    weights = _nucleus(weights, [sequence.options.top_p for sequence in sequences])
    cumulative = weights.cumsum(dim=-1, dtype=torch.float64)
    uniform = _column([sequence.draw() for sequence in sequences], cumulative)
    return torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True).squeeze(-1)


def _nucleus(weights: torch.Tensor, top_p: list[float]) -> torch.Tensor:
    """Zero all but the smallest set of tokens that has top_p of the weight: [rows, vocab]."""
    rows = [row for row, share in enumerate(top_p) if share < 1]
    if not rows:
        return weights
    share = _column([top_p[row] for row in rows], weights)
    floor = torch.zeros_like(weights[:, :1])
    floor[rows] = _smallest_kept(weights[rows], share)
    return weights.where(weights >= floor, 0)


def _smallest_kept(weights: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """The weight of the last token in each nucleus: [rows, 1]."""
    likely = weights.topk(min(_LIKELY, weights.shape[-1]), dim=-1).values
    if bool((likely.sum(dim=-1, keepdim=True) < share).any()):
        likely = weights.sort(dim=-1, descending=True).values
    before = likely.cumsum(dim=-1) - likely
    kept = (before < share).sum(dim=-1, keepdim=True).clamp(min=1)  # a tiny share rounds to 0
    return likely.gather(-1, kept - 1)


def _column(values: list[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).unsqueeze(-1)
