"""Attention for packed tokens over our cache: the function that transformers' layers call.

The tokens of a step lie one after the other, [1, heads, tokens, size]. A plan, made once a step,
says which of them read which part of the cache; every layer then follows the same plan.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch.nn.functional import scaled_dot_product_attention

from batch_api.engine.batcher import Chunk
from batch_api.engine.cache import Cache

_CALL = 128  # positions that could be read in the time that one more call takes

NAME = "batch_api"  # as registered with transformers


class Attention(Protocol):
    """What is behind the function while a forward pass runs."""

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        rule: "Rule",
    ) -> torch.Tensor: ...


@dataclass(frozen=True, slots=True)
class Rule:
    """How a layer attends, as it says itself."""

    scale: float | None
    window: int | None  # a position sees this many, itself included
    softcap: float | None
    unknown: tuple[str, ...]  # arguments that change attention in a way we do not have


_current: ContextVar[Attention] = ContextVar("attention")
_UNKNOWN = ("s_aux", "position_bias", "cu_seq_lens_q")


def attention_function(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls: [1, heads, tokens, size] each → [1, tokens, heads, size]."""
    rule = Rule(
        scale=scaling,
        window=options.get("sliding_window"),
        softcap=options.get("softcap"),
        unknown=tuple(name for name in _UNKNOWN if options.get(name) is not None),
    )
    layer: Any = module.layer_idx
    query, key, value = (each.squeeze(0).transpose(0, 1) for each in (query, key, value))
    return _current.get().attend(layer, query, key, value, rule).unsqueeze(0), None


@contextmanager
def attending(attention: Attention) -> Iterator[None]:
    token = _current.set(attention)
    try:
        yield
    finally:
        _current.reset(token)


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
            attend = _attend_rows if read.size == 1 else _attend_chunk
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


def _attend_rows(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    rule: Rule,
) -> torch.Tensor:
    """query: [slots, heads, size], one row a slot; keys, values: [slots, key heads, length, size].

    The query heads that share a key head become rows, so that each key is read once.
    """
    grouped = query.reshape(len(keys), keys.shape[1], -1, query.shape[-1])
    return _weigh(grouped, keys, values, mask, rule, is_causal=False).flatten(1, 2)


def _attend_chunk(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    rule: Rule,
) -> torch.Tensor:
    """query: [rows, heads, size], of one slot; keys, values: [1, key heads, length, size]."""
    heads_first = query.transpose(0, 1).unsqueeze(0)
    attended = _weigh(heads_first, keys, values, mask, rule, is_causal=mask is None)
    return attended.squeeze(0).transpose(0, 1)


def _weigh(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    rule: Rule,
    *,
    is_causal: bool,
) -> torch.Tensor:
    """[slots, heads, rows, size] each, key heads shared by groups of query heads."""
    if rule.softcap is not None:
        return _weigh_capped(query, keys, values, mask, rule.scale, rule.softcap)
    return scaled_dot_product_attention(
        query,
        keys,
        values,
        attn_mask=mask,
        is_causal=is_causal,
        scale=rule.scale,
        enable_gqa=query.shape[1] != keys.shape[1],
    )


def _weigh_capped(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float | None,
    softcap: float,
) -> torch.Tensor:
    """Attention with softly capped scores, as in Gemma 2 (arXiv 2408.00118): by hand."""
    group = query.shape[1] // keys.shape[1]
    keys, values = (tensor.repeat_interleave(group, dim=1) for tensor in (keys, values))
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = (query @ keys.transpose(-1, -2) * (scale / softcap)).tanh() * softcap
    if mask is None:
        mask = torch.full_like(scores[:1, :1], -torch.inf).triu(1)
    weights = (scores + mask).softmax(dim=-1, dtype=torch.float32)
    return weights.to(query.dtype) @ values
