"""What the event loop knows of one running sequence: the deltas that no one has taken yet."""

import asyncio
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar


class AnyDelta(Protocol):
    """What one step did for one sequence: a Delta of the engine, or what the embedder gives."""

    @property
    def sequence(self) -> Hashable: ...

    @property
    def is_last(self) -> bool: ...

    @property
    def is_news(self) -> bool:
        """Whether it holds anything that a reader would wake up for."""
        ...


_Delta = TypeVar("_Delta", bound=AnyDelta)


class Answer(Generic[_Delta]):
    """`whole`: wake the reader once, when the sequence is finished, instead of at each text."""

    def __init__(self, *, whole: bool) -> None:
        self._whole = whole
        self._deltas: list[_Delta] = []
        self._error: Exception | None = None
        self._news = asyncio.Event()
        self.is_finished = False

    def put(self, delta: _Delta) -> None:
        self._deltas.append(delta)
        self.is_finished = delta.is_last
        if self.is_finished or (delta.is_news and not self._whole):
            self._news.set()

    def fail(self, error: Exception) -> None:
        self._error = error
        self.is_finished = True
        self._news.set()

    async def take(self) -> list[_Delta]:
        """The deltas since the last call, at least one. Raises what the sequence failed with."""
        await self._news.wait()
        self._news.clear()
        if self._error is not None:
            raise self._error
        deltas, self._deltas = self._deltas, []
        return deltas
