"""From logits to tokens: one batched call, and no row depends on its neighbours."""

import torch

from batch_api.engine.masks import Masks
from batch_api.engine.penalties import add_biases, penalize
from batch_api.engine.sequence import Sequence
from batch_api.engine.truncation import column, truncate

NO_TOKEN = -1
"""Of a row whose logits are not finite; no other row suffers."""


@torch.inference_mode()
def sample(
    logits: torch.Tensor, sequences: list[Sequence], *, end_tokens: frozenset[int] = frozenset()
) -> list[int]:
    """One token for each row, or NO_TOKEN; logits: [sequences, vocab], which this may change."""
    masks = Masks(sequences)
    logits = logits.float()  # the argmax too is four times as fast as in bf16 on a CPU
    penalize(logits, sequences)
    add_biases(logits, sequences, end_tokens=end_tokens)
    masks.forbid(logits)
    tokens = logits.argmax(dim=-1)  # of NaN and infinity, if they are there
    broken = ~logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1).isfinite()
    drawn = [row for row, sequence in enumerate(sequences) if not sequence.is_greedy]
    if drawn:
        rows = torch.tensor(drawn, device=logits.device)
        tokens[rows] = _draw(logits[rows], [sequences[row] for row in drawn])
    tokens[broken] = NO_TOKEN
    return [int(token) for token in tokens.tolist()]


def _draw(logits: torch.Tensor, sequences: list[Sequence]) -> torch.Tensor:
    """Invert the cumulative distribution at each sequence's own uniform number: [sequences]."""
    temperature = column([sequence.options.temperature for sequence in sequences], logits)
    logits = logits - logits.amax(dim=-1, keepdim=True)
    weights = (logits / temperature.clamp(min=1e-6)).softmax(dim=-1)
    cumulative = truncate(weights, sequences).cumsum(dim=-1, dtype=torch.float64)
    uniform = column([sequence.draw() for sequence in sequences], cumulative)
    return torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True).squeeze(-1)
