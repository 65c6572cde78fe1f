"""Each pooling against the same sum over a text's own tokens, without padding."""

from collections.abc import Callable

import pytest
import torch

from batch_api.engine.pooling import POOLINGS, pool

LENGTHS = [1, 5, 3]
SIZE = 4

OF_ONE: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "cls": lambda tokens: tokens[0],
    "lasttoken": lambda tokens: tokens[-1],
    "max": lambda tokens: tokens.max(0).values,
    "mean": lambda tokens: tokens.mean(0),
    "mean_sqrt_len_tokens": lambda tokens: tokens.sum(0) / len(tokens) ** 0.5,
    "weightedmean": lambda tokens: (
        sum(place * token for place, token in enumerate(tokens, 1))
        / torch.tensor(float(sum(range(1, len(tokens) + 1))))
    ),
}


def _padded() -> tuple[torch.Tensor, torch.Tensor]:
    """What lies in the padding is large, so that it would be seen."""
    hidden = torch.randn(len(LENGTHS), max(LENGTHS), SIZE, generator=torch.Generator())
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS).unsqueeze(1)).long()
    return torch.where(mask.unsqueeze(-1) == 1, hidden, torch.tensor(1e3)), mask


@pytest.mark.parametrize("name", POOLINGS)
def test_padding_takes_no_part(name: str) -> None:
    hidden, mask = _padded()

    pooled = pool(hidden, mask, (name,))

    wanted = [OF_ONE[name](row[:length]) for row, length in zip(hidden, LENGTHS, strict=True)]
    torch.testing.assert_close(pooled, torch.stack(wanted))


def test_several_poolings_are_joined_in_order() -> None:
    hidden, mask = _padded()

    joined = pool(hidden, mask, ("max", "cls"))

    assert joined.shape == (len(LENGTHS), 2 * SIZE)
    assert joined[:, :SIZE].equal(pool(hidden, mask, ("max",)))
    assert joined[:, SIZE:].equal(pool(hidden, mask, ("cls",)))
