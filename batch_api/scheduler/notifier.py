"""Tells receivers of the ends of batches: signed webhooks, again and again until one is taken."""

import asyncio
import time
from collections import Counter, defaultdict, deque
from collections.abc import Coroutine
from typing import Any

from batch_api.clock import Clock
from batch_api.origins import origin
from batch_api.receivers import Receivers
from batch_api.scheduler.courier import MOST_PAUSE_SECONDS, Courier
from batch_api.scheduler.metrics import SchedulerMetrics
from batch_api.scheduler.patience import patiently
from batch_api.scheduler.receipts import Receipt, Receipts
from batch_api.scheduler.wakeup import Wakeup
from batch_api.settings import Settings
from batch_api.store import deliveries
from batch_api.store.database import Database
from batch_api.store.deliveries import Due
from batch_api.waiting import wait

_POLL_SECONDS = 1.0
_LOOK_SECONDS = 0.2
"""Between two looks at the store, at least; what they read lasts until the next one."""
_LOOK_SHARE = 0.2
"""Of the time, which looks may take where very many URLs wait."""
_READ_OF_URL = 500
_READ_OF_ORIGIN = 1000

_MOST_AT_ONCE = 256
_MOST_OF_ORIGIN = 16
_MOST_OF_URL = 4
"""So that who is slow keeps few others waiting: himself, and hardly the others on his host."""


class Notifier:
    def __init__(
        self,
        *,
        database: Database,
        settings: Settings,
        clock: Clock,
        wakeup: Wakeup,
        receivers: Receivers | None,
        metrics: SchedulerMetrics,
    ) -> None:
        """`receivers`: None if there is no secret to sign with; what is due waits then."""
        self._database = database
        self._settings = settings
        self._clock = clock
        self._bell = wakeup.bell()
        self._courier = (
            Courier(settings=settings, clock=clock, receivers=receivers) if receivers else None
        )
        self._receipts = Receipts(database=database, clock=clock, metrics=metrics)
        self._ahead: dict[str, deque[Due]] = {}
        """By URL: what is due and not under way."""
        self._under_way = set[int]()
        self._rounds = Counter[str]()
        """That are made to each URL."""
        self._places = asyncio.Semaphore(_MOST_AT_ONCE)
        self._places_at = defaultdict[str, asyncio.Semaphore](
            lambda: asyncio.Semaphore(_MOST_OF_ORIGIN)
        )

    async def run(self, stop: asyncio.Event) -> None:
        """What is under way at `stop` may end within the grace period; else it is sent again."""
        if self._courier is None:
            return
        rounds = set[asyncio.Task[None]]()
        async with self._receipts.recording(), asyncio.TaskGroup() as group:
            while not stop.is_set():
                self._bell.clear()
                began = time.monotonic()
                if self._receipts.have_room:
                    await patiently(self._look, None)
                    rounds |= {group.create_task(it) for it in self._new_rounds(self._courier)}
                else:
                    self._bell.set()  # to see soon whether there is room again
                took_seconds = time.monotonic() - began
                await wait(stop, max(_LOOK_SECONDS, took_seconds / _LOOK_SHARE))
                await wait(self._bell, _POLL_SECONDS)
                rounds = {task for task in rounds if not task.done()}
            self._ahead.clear()
            if rounds:
                await asyncio.wait(rounds, timeout=self._settings.shutdown_grace_seconds)
            for task in rounds:
                task.cancel()

    async def deliver_once(self) -> int:
        """Try what is due, as much of it as is read at once; return how much that was."""
        if self._courier is None:
            return 0
        async with self._receipts.recording():
            await self._look()
            count = sum(map(len, self._ahead.values()))
            await asyncio.gather(*self._new_rounds(self._courier))
        return count

    async def _look(self) -> None:
        """What is due and not under way, anew; meanwhile nothing is begun that is read here."""
        self._ahead.clear()
        async with self._database.read() as session:
            found = await deliveries.due(
                session,
                now=self._clock.now(),
                within=MOST_PAUSE_SECONDS,
                of_url=_READ_OF_URL,
                of_origin=_READ_OF_ORIGIN,
                but_not=self._under_way | self._receipts.numbers,
            )
        for due in found:
            self._ahead.setdefault(due.url, deque()).append(due)

    def _new_rounds(self, courier: Courier) -> list[Coroutine[Any, Any, None]]:
        """Beside those that are made already, so many to each URL that it gets its few at once."""
        self._rounds = +self._rounds
        new = [
            url
            for url, queue in self._ahead.items()
            for _ in range(min(len(queue), _MOST_OF_URL - self._rounds[url]))
        ]
        self._rounds.update(new)
        return [self._round(courier, url) for url in new]

    async def _round(self, courier: Courier, url: str) -> None:
        """One after the other; before each, whoever waits for a place at that host has had one."""
        places = self._places_at[origin(url)]
        try:
            while self._ahead.get(url) and self._receipts.have_room:
                async with places, self._places:
                    await self._deliver_next(courier, url)
        finally:
            self._rounds[url] -= 1
            self._bell.set()

    async def _deliver_next(self, courier: Courier, url: str) -> None:
        """If there is still one, and room for what comes of it, for who stood in line."""
        if (queue := self._ahead.get(url)) and self._receipts.have_room:
            due = queue.popleft()
            self._under_way.add(due.number)
            try:
                self._receipts.add(Receipt(due, await courier.deliver(due)))
            finally:
                self._under_way.discard(due.number)
