"""Grammars' masks over the logits: one tensor operation for all rows that have a grammar."""

import torch

from batch_api.engine.sequence import Sequence

_BITS = torch.tensor([1 << bit for bit in range(8)], dtype=torch.uint8)


class Masks:
    """Found before anything waits for the logits: on a GPU the forward pass still runs then."""

    def __init__(self, sequences: list[Sequence]) -> None:
        matchers = {row: each.matcher for row, each in enumerate(sequences) if each.matcher}
        self._rows = list(matchers)
        self._packed = bytearray().join(matcher.mask() for matcher in matchers.values())

    def forbid(self, logits: torch.Tensor) -> None:
        """-inf, in place, for what no grammar allows; logits: [sequences, vocab]."""
        if not self._rows:
            return
        masks = torch.frombuffer(self._packed, dtype=torch.uint8).view(len(self._rows), -1)
        rows = torch.tensor(self._rows, device=logits.device)
        forbidden = _zeros(masks.to(logits.device), logits.shape[-1])
        logits[rows] = logits[rows].masked_fill_(forbidden, -torch.inf)


def _zeros(masks: torch.Tensor, size: int) -> torch.Tensor:
    """Which bits are 0; a byte has eight, from the lowest: [rows, bytes] → bool, [rows, size]."""
    bits = masks.unsqueeze(-1) & _BITS.to(masks.device)
    return (bits == 0).flatten(1)[:, :size]
