"""Which tokens of a step read which part of the cache: made once a step, followed by every layer.

The tokens of a step lie one after the other, decoding ones first, by slot.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from batch_api.engine.attention import Rule, attend_chunk, attend_rows
from batch_api.engine.batcher import Chunk
from batch_api.engine.cache import Cache

_CALL = 128  # positions that could be read in the time that one more call takes


@dataclass(slots=True)
class Read:
    """Rows of the step that attend in one call: either one row for each of several slots that
    lie side by side, or the rows of one prompt's chunk."""

    rows: slice
    slots: slice
    starts: list[int]  # position of each slot's first row
    size: int  # rows for each slot
    length: int  # positions read
    dtype: torch.dtype
    device: torch.device
    masks: dict[int | None, torch.Tensor | None] = field(default_factory=dict)

    def mask(self, window: int | None) -> torch.Tensor | None:
        """What each row sees, for all heads: 0, or -inf for what it does not, in the queries'
        dtype, [slots, 1, size, length]; None is all up to itself, in a chunk from position 0."""
        if window not in self.masks:
            self.masks[window] = None if self._is_plain(window) else self._mask(window)
        return self.masks[window]

    def _is_plain(self, window: int | None) -> bool:
        return self.starts == [0] and (window is None or window >= self.length)

    def _mask(self, window: int | None) -> torch.Tensor:
        starts = torch.tensor(self.starts, device=self.device)
        row = starts[:, None, None] + torch.arange(self.size, device=self.device)[:, None]
        position = torch.arange(self.length, device=self.device)
        seen = position <= row
        if window is not None:
            seen = seen & (position > row - window)
        blank = torch.zeros(seen.shape, dtype=self.dtype, device=self.device)
        return blank.masked_fill(~seen, -torch.inf).unsqueeze(1)


@dataclass(slots=True)
class CachedAttention:
    """Writes the step's keys and values into the cache, and attends over it as planned."""

    cache: Cache
    slots: torch.Tensor  # of each token: [tokens]
    positions: torch.Tensor  # of each token: [tokens]
    reads: list[Read]

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        rule: Rule,
    ) -> torch.Tensor:
        """query, key, value: [tokens, heads, size] → [tokens, query heads, value size]."""
        self.cache.write(layer, (self.slots, self.positions), key, value)
        output = query.new_empty(*query.shape[:2], value.shape[-1])
        for read in self.reads:
            keys, values = self.cache.read(layer, read.slots, read.length)
            attend = attend_rows if read.size == 1 else attend_chunk
            output[read.rows] = attend(query[read.rows], keys, values, read.mask(rule.window), rule)
        return output


def plan(chunks: list[Chunk], cache: Cache, device: torch.device) -> CachedAttention:
    """The chunks' order is the tokens' order; decoding ones first, by slot."""
    positions = [position for chunk in chunks for position in range(chunk.start, chunk.stop)]
    slots = [chunk.slot for chunk in chunks for _ in range(chunk.size)]
    return CachedAttention(
        cache=cache,
        slots=torch.tensor(slots, device=device),
        positions=torch.tensor(positions, device=device),
        reads=list(_reads(chunks, cache.dtype, device)),
    )


def _reads(chunks: list[Chunk], dtype: torch.dtype, device: torch.device) -> Iterator[Read]:
    row = 0
    for group in _groups(chunks):
        size = group[0].size
        yield Read(
            rows=slice(row, row + size * len(group)),
            slots=slice(group[0].slot, group[-1].slot + 1),
            starts=[chunk.start for chunk in group],
            size=size,
            length=max(chunk.stop for chunk in group),
            dtype=dtype,
            device=device,
        )
        row += size * len(group)


def _groups(chunks: list[Chunk]) -> Iterator[list[Chunk]]:
    """Neighbouring slots with one row each go together, unless a call of its own is cheaper for
    the next than reading up to the longest for all."""
    group: list[Chunk] = []
    for chunk in chunks:
        if group and not _fits(group, chunk):
            yield group
            group = []
        group.append(chunk)
    if group:
        yield group


def _fits(group: list[Chunk], chunk: Chunk) -> bool:
    if chunk.size > 1 or group[-1].size > 1 or chunk.slot != group[-1].slot + 1:
        return False
    longest = max(each.stop for each in group)
    together = max(longest, chunk.stop) * (len(group) + 1)
    return together - longest * len(group) - chunk.stop <= _CALL
