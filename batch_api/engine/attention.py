"""The attention function that transformers' layers call, and the arithmetic of attention.

What a call reads and writes is not decided here: that is the plan of the step.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.nn.functional import scaled_dot_product_attention

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


def attend_rows(
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


def attend_chunk(
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
