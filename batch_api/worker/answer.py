"""What the event loop knows of one running sequence: the deltas that no one has taken yet."""

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batch_api.engine.engine import Delta


class Answer:
    """`whole`: wake the reader once, when the sequence is finished, instead of at each text."""

    def __init__(self, *, whole: bool) -> None:
        self._whole = whole
        self._deltas: list[Delta] = []
        self._error: Exception | None = None
        self._news = asyncio.Event()
        self.is_finished = False

    def put(self, delta: "Delta") -> None:
        self._deltas.append(delta)
        self.is_finished = delta.finish_reason is not None
        if self.is_finished or (delta.text and not self._whole):
            self._news.set()

    def fail(self, error: Exception) -> None:
        self._error = error
        self.is_finished = True
        self._news.set()

    async def take(self) -> list["Delta"]:
        """The deltas since the last call, at least one. Raises what the sequence failed with."""
        await self._news.wait()
        self._news.clear()
        if self._error is not None:
            raise self._error
        deltas, self._deltas = self._deltas, []
        return deltas
