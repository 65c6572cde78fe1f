"""Logarithms of probabilities, of tokens that were generated or that a prompt has."""

from collections.abc import Iterator

import torch

from batch_api.engine.sequence import TokenLogprob

_LEAST = -9999.0  # JSON has no infinity; OpenAI writes this
_USUAL_TOP = 20  # so many are always looked for, so that ties fall alike whoever asks beside
_PIECE = 64  # rows at once: fp32 copies of a long prompt's logits would be large


@torch.inference_mode()
def token_logprobs(
    logits: torch.Tensor, tokens: list[int], top: list[int]
) -> Iterator[TokenLogprob]:
    """logits: [tokens, vocab], as the model gives them; `top`: how many of the likeliest."""
    for start in range(0, len(tokens), _PIECE):
        piece = slice(start, start + _PIECE)
        yield from _piece(logits[piece].float(), tokens[piece], top[piece])


def _piece(logits: torch.Tensor, tokens: list[int], top: list[int]) -> Iterator[TokenLogprob]:
    total = logits.logsumexp(dim=-1, keepdim=True)
    column = torch.tensor(tokens, device=logits.device).unsqueeze(-1)
    own = _listed(logits.gather(-1, column) - total)
    best = logits.topk(_breadth(logits, top), dim=-1)
    ids, likely = best.indices.tolist(), _listed(best.values - total)
    for row, (token, count) in enumerate(zip(tokens, top, strict=True)):
        beside = zip(ids[row][:count], likely[row][:count], strict=True)
        yield TokenLogprob(token, own[row][0], tuple(beside))


def _breadth(logits: torch.Tensor, top: list[int]) -> int:
    return min(max(_USUAL_TOP, *top), logits.shape[-1]) if any(top) else 0


def _listed(logprobs: torch.Tensor) -> list[list[float]]:
    listed: list[list[float]] = logprobs.clamp(min=_LEAST).tolist()
    return listed
