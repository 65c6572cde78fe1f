"""What takes long to find out, and is the same for all who ask for a while."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

from batch_api.clock import Clock

_Found = TypeVar("_Found")


@dataclass(slots=True)
class _Kept:
    task: asyncio.Task[Any]
    until: float | None = None
    """None: it is not found yet, or could not be."""

    def is_of_use(self, now: float) -> bool:
        return not self.task.done() or (self.until is not None and now < self.until)


class Remembered:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[Hashable, _Kept] = {}
        self._turn = asyncio.Lock()

    async def find(
        self,
        what: Hashable,
        look: Callable[[], Coroutine[Any, Any, _Found]],
        *,
        keep_seconds: float,
    ) -> _Found:
        """As it was found within that time: however many want it, it is looked for once.

        Different things are looked for one after the other, to leave room for others' work.
        """
        now = self._clock.monotonic()
        self._kept = {key: kept for key, kept in self._kept.items() if kept.is_of_use(now)}
        if what not in self._kept:
            task = asyncio.create_task(self._look(what, look, keep_seconds))
            self._kept[what] = _Kept(task)
        # Who leaves meanwhile takes it from nobody else.
        found: _Found = await asyncio.shield(self._kept[what].task)
        return found

    async def _look(
        self,
        what: Hashable,
        look: Callable[[], Coroutine[Any, Any, _Found]],
        keep_seconds: float,
    ) -> _Found:
        async with self._turn:
            found = await look()
        self._kept[what].until = self._clock.monotonic() + keep_seconds
        return found
