"""What the event loop knows of one request's running sequences: the deltas no one has taken yet."""

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

    @property
    def is_broken(self) -> bool:
        """Whether the model gave no numbers to go on with."""
        ...


_Delta = TypeVar("_Delta", bound=AnyDelta)


class Answer(Generic[_Delta]):
    """`whole`: wake the reader once, when all sequences have ended, instead of at each text."""

    def __init__(self, sequences: int, *, whole: bool) -> None:
        self._running = sequences
        self._whole = whole
        self._deltas: list[_Delta] = []
        self._error: Exception | None = None
        self._news = asyncio.Event()

    @property
    def is_taken(self) -> bool:
        """Whether there is nothing to wait for any more."""
        return not self._running and not self._deltas

    def put(self, delta: _Delta) -> None:
        self._deltas.append(delta)
        self._running -= delta.is_last
        if not self._running or (not self._whole and (delta.is_news or delta.is_last)):
            self._news.set()

    def fail(self, error: Exception) -> None:
        self._error = error
        self._news.set()

    async def take(self) -> list[_Delta]:
        """The deltas since the last call, at least one. Raises what a sequence failed with."""
        await self._news.wait()
        self._news.clear()
        if self._error is not None:
            raise self._error
        deltas, self._deltas = self._deltas, []
        return deltas
