"""Penalties and biases: what changes the logits of a few tokens, in place.

All rows' tokens are gathered, changed and put back at once; rows that ask for nothing are not
touched. Penalties first, then biases, so that a bias has exactly the weight it was given.
"""

from dataclasses import dataclass

import torch

from batch_api.engine.sequence import Sequence
from batch_api.engine.sparse import SparseRow

_LAST_RESORT = -1e9  # drawn only where all else is forbidden


@dataclass(frozen=True, slots=True)
class Cells:
    """Some of the logits, and a number for each: [cells]."""

    rows: torch.Tensor
    tokens: torch.Tensor
    numbers: torch.Tensor

    @property
    def place(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.rows, self.tokens


def penalize(logits: torch.Tensor, sequences: list[Sequence]) -> None:
    """OpenAI's frequency and presence penalties (of the answer's tokens) and the repetition
    penalty of arXiv 1909.05858 (of the prompt's too); logits: [sequences, vocab], fp32.
    """
    asking = [row for row, each in enumerate(sequences) if each.options.has_penalties]
    cells = _cells({row: sequences[row].counts() for row in asking}, logits.device)
    if cells is None:
        return
    options = [each.options for each in sequences]
    repetition = _of_rows([each.repetition_penalty for each in options], cells)
    frequency = _of_rows([each.frequency_penalty for each in options], cells)
    presence = _of_rows([each.presence_penalty for each in options], cells)
    values = logits[cells.place]
    values = torch.where(values > 0, values / repetition, values * repetition)
    values -= frequency * cells.numbers + presence * (cells.numbers > 0)
    logits[cells.place] = values


def add_biases(
    logits: torch.Tensor, sequences: list[Sequence], *, end_tokens: frozenset[int]
) -> None:
    """What was asked for; and no end before `min_tokens`, unless a grammar allows nothing else."""
    for biases in (
        {row: each.bias for row, each in enumerate(sequences) if each.bias},
        {row: _ends(each, end_tokens) for row, each in enumerate(sequences) if _must_go_on(each)},
    ):
        if cells := _cells(biases, logits.device):
            logits[cells.place] += cells.numbers


def _must_go_on(sequence: Sequence) -> bool:
    return len(sequence.tokens) < sequence.options.min_tokens


def _ends(sequence: Sequence, end_tokens: frozenset[int]) -> SparseRow:
    return SparseRow(dict.fromkeys(end_tokens | sequence.options.stop_tokens, _LAST_RESORT))


def _cells(numbers: dict[int, SparseRow], device: torch.device) -> Cells | None:
    """`numbers`: by row; None if there are none at all."""
    sizes = torch.tensor([len(each) for each in numbers.values()])
    if not sizes.any():
        return None
    rows = torch.tensor(list(numbers)).repeat_interleave(sizes)
    tokens = bytearray().join(each.tokens for each in numbers.values())
    values = bytearray().join(each.numbers for each in numbers.values())
    return Cells(
        rows.to(device),
        torch.frombuffer(tokens, dtype=torch.int64).to(device),
        torch.frombuffer(values, dtype=torch.float32).to(device),
    )


def _of_rows(values: list[float], cells: Cells) -> torch.Tensor:
    return torch.tensor(values, device=cells.rows.device)[cells.rows]
