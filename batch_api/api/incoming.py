"""A body that streams in, and what its headers say of it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Incoming:
    content_type: str
    announced_bytes: int
    """0 if it isn't known."""
    chunks: AsyncIterator[bytes]
    """Decompressed."""
