"""The keys and values of every position in every slot; its memory is set aside once."""

from dataclasses import dataclass
from math import prod
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap

import torch


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What one layer keeps of a position."""

    heads: int
    key_size: int
    value_size: int

    @property
    def numbers(self) -> int:
        return self.heads * (self.key_size + self.value_size)


class Cache:
    """For each layer, keys and values: [slots, heads, positions, size]."""

    def __init__(
        self,
        shapes: list[LayerShape],
        *,
        slots: int,
        positions: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        def zeros(heads: int, size: int) -> torch.Tensor:
            # Zeros, not garbage: a masked position takes part with weight 0, and 0 * NaN is NaN.
            shape = (slots, heads, positions, size)
            if device.type == "cpu":
                return _lazy_zeros(shape, dtype)
            return torch.zeros(shape, dtype=dtype, device=device)

        self.dtype = dtype
        self.slots = slots
        self.positions = positions
        self.keys = [zeros(shape.heads, shape.key_size) for shape in shapes]
        self.values = [zeros(shape.heads, shape.value_size) for shape in shapes]

    @property
    def memory_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.keys + self.values)

    def write(
        self, layer: int, where: tuple[torch.Tensor, ...], key: torch.Tensor, value: torch.Tensor
    ) -> None:
        """Put key and value, [tokens, heads, size], at `where`: slots and positions, [tokens]."""
        slots, positions = where
        self.keys[layer][slots, :, positions] = key
        self.values[layer][slots, :, positions] = value

    def clear(self, slot: int) -> None:
        """Zeros again."""
        for tensor in self.keys + self.values:
            tensor[slot].zero_()

    def read(self, layer: int, slots: slice, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the first positions of some slots, not copied."""
        return self.keys[layer][slots, :, :length], self.values[layer][slots, :, :length]


def _lazy_zeros(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Memory that is taken page by page as it is written; torch.zeros would take all of it."""
    pages = mmap(-1, prod(shape) * dtype.itemsize, flags=MAP_PRIVATE | MAP_ANONYMOUS)
    return torch.frombuffer(pages, dtype=dtype).view(shape)


def bytes_per_slot(shapes: list[LayerShape], *, positions: int, dtype: torch.dtype) -> int:
    return sum(shape.numbers for shape in shapes) * positions * dtype.itemsize
