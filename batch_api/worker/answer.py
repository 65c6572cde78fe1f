"""What the event loop knows of one request's running sequences: the deltas no one has taken yet."""

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batch_api.engine.engine import Delta


class Answer:
    """`whole`: wake the reader once, when all sequences have ended, instead of at each text."""

    def __init__(self, sequences: int, *, whole: bool) -> None:
        self._running = sequences
        self._whole = whole
        self._deltas: list[Delta] = []
        self._error: Exception | None = None
        self._news = asyncio.Event()

    @property
    def is_taken(self) -> bool:
        """Whether there is nothing to wait for any more."""
        return not self._running and not self._deltas

    def put(self, delta: "Delta") -> None:
        self._deltas.append(delta)
        has_ended = delta.finish_reason is not None
        self._running -= has_ended
        if not self._running or (not self._whole and (delta.text or has_ended)):
            self._news.set()

    def fail(self, error: Exception) -> None:
        self._error = error
        self._news.set()

    async def take(self) -> list["Delta"]:
        """The deltas since the last call, at least one. Raises what a sequence failed with."""
        await self._news.wait()
        self._news.clear()
        if self._error is not None:
            raise self._error
        deltas, self._deltas = self._deltas, []
        return deltas
