"""Tells receivers of the ends of batches: signed webhooks, again and again until one is taken."""

import asyncio
import logging
import math
import time
from collections.abc import Collection, Sequence
from functools import partial
from random import Random

from batch_api.clock import Clock
from batch_api.failpoints import failpoint
from batch_api.lifecycle import BatchStatus, DeliveryState
from batch_api.origins import leads_to
from batch_api.receivers import Message, Receivers, Reception
from batch_api.scheduler.metrics import SchedulerMetrics
from batch_api.scheduler.patience import patiently
from batch_api.scheduler.wakeup import Wakeup
from batch_api.schemas.events import Event
from batch_api.settings import Settings
from batch_api.store import deliveries
from batch_api.store.database import Database
from batch_api.store.deliveries import Attempt
from batch_api.store.tables import DeliveryRow
from batch_api.waiting import wait

log = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_LOOK_SECONDS = 0.2
"""Between two looks at the store, which cost the more the more waits; slots are filled from memory
meanwhile."""
_AHEAD = 32
"""So many times what may be under way is read at once."""
_MOST_AT_ONCE = 64
_MOST_OF_ORIGIN = 8
_MOST_OF_URL = 2
"""So that who is slow keeps few others waiting: himself, and hardly the others on his host."""

_FIRST_PAUSE_SECONDS = 5.0
_GROWTH = 4.0
_LONGEST_PAUSE_SECONDS = 6 * 3600.0
_MOST_ATTEMPTS = 19
"""The last is about three days after the first."""
_JITTER = 0.2

_NOT_ALLOWED = Reception("is no longer named by the settings")


class Slots:
    """What is under way: to each URL, and to each host, a few at once."""

    def __init__(self) -> None:
        self._taken: dict[int, DeliveryRow] = {}

    @property
    def numbers(self) -> Collection[int]:
        return self._taken.keys()

    def take(self, row: DeliveryRow) -> bool:
        """Whether one was free."""
        taken = self._taken.values()
        is_free = (
            len(taken) < _MOST_AT_ONCE
            and sum(it.origin == row.origin for it in taken) < _MOST_OF_ORIGIN
            and sum(it.url == row.url for it in taken) < _MOST_OF_URL
        )
        if is_free:
            self._taken[row.number] = row
        return is_free

    def give_back(self, row: DeliveryRow) -> None:
        del self._taken[row.number]


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
        self._receivers = receivers
        self._metrics = metrics
        self._slots = Slots()
        self._ahead: Sequence[DeliveryRow] = ()
        self._looked_at = -math.inf
        self._random = Random()  # noqa: S311 nobody gains by knowing it
        self._stop = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """What is under way at `stop` may end within the grace period; else it is sent again."""
        if self._receivers is None:
            return
        self._stop = stop
        tasks = set[asyncio.Task[None]]()
        async with asyncio.TaskGroup() as group:
            while not stop.is_set():
                self._bell.clear()
                if looks := time.monotonic() - self._looked_at >= _LOOK_SECONDS:
                    await patiently(self._look, None)
                due = self._take()
                tasks |= {group.create_task(self._deliver(self._receivers, row)) for row in due}
                await wait(self._bell, _POLL_SECONDS if looks else _LOOK_SECONDS)
                tasks = {task for task in tasks if not task.done()}
            if tasks:
                await asyncio.wait(tasks, timeout=self._settings.shutdown_grace_seconds)
            for task in tasks:
                task.cancel()

    async def deliver_once(self) -> int:
        """Try what is due, as much of it as may be at once; return how much that was."""
        if self._receivers is None:
            return 0
        await self._look()
        due = self._take()
        await asyncio.gather(*(self._deliver(self._receivers, row) for row in due))
        return len(due)

    async def _look(self) -> None:
        """What is due and not under way, anew."""
        self._looked_at = time.monotonic()
        async with self._database.read() as session:
            self._ahead = await deliveries.due(
                session,
                now=self._clock.now(),
                within=_LONGEST_PAUSE_SECONDS * (1 + _JITTER),
                of_url=_MOST_OF_URL * _AHEAD,
                of_origin=_MOST_OF_ORIGIN * _AHEAD,
                but_not=self._slots.numbers,
            )

    def _take(self) -> list[DeliveryRow]:
        """What is to be sent now; it is under way from here on."""
        taken = [row for row in self._ahead if self._slots.take(row)]
        self._ahead = [row for row in self._ahead if row.number not in self._slots.numbers]
        return taken

    async def _deliver(self, receivers: Receivers, row: DeliveryRow) -> None:
        try:
            await failpoint("webhook_lost")
            reception = await self._tell(receivers, row)
            await failpoint("webhook_told_twice")
            ended = self._judge(row, reception)
            # While it can't be recorded nothing else is sent there: it would be the same again.
            while not await patiently(partial(self._record, row, ended), False):
                if await wait(self._stop, _POLL_SECONDS):
                    return
        finally:
            self._slots.give_back(row)
            self._bell.set()

    async def _tell(self, receivers: Receivers, row: DeliveryRow) -> Reception:
        named, hosts = self._settings.webhook_urls, self._settings.webhook_hosts
        if row.url not in named and not leads_to(row.url, hosts):
            return _NOT_ALLOWED
        event = Event.of_end(row.batch_id, BatchStatus(row.status), at=row.ended_at)
        message = Message(event.id, event.as_json())
        return await receivers.tell(row.url, message, now=self._clock.now())

    def _judge(self, row: DeliveryRow, reception: Reception) -> Attempt:
        failure = reception.failure
        if failure is None:
            return Attempt(row.number, DeliveryState.DELIVERED)
        if reception.is_for_good or row.attempts + 1 >= _MOST_ATTEMPTS:
            return Attempt(row.number, DeliveryState.GIVEN_UP, failure)
        jitter = self._random.uniform(1 - _JITTER, 1 + _JITTER)
        pause = max(_pause_seconds(row.attempts + 1) * jitter, reception.wish_seconds)
        return Attempt(row.number, DeliveryState.PENDING, failure, self._clock.now() + pause)

    async def _record(self, row: DeliveryRow, ended: Attempt) -> bool:
        """True. What was over before is not told again."""
        async with self._database.write.begin() as session:
            was_pending = await deliveries.record(session, ended, now=self._clock.now())
        if was_pending:
            self._metrics.told(ended.state)
            _log(row, ended)
        return True


def _pause_seconds(attempts: int) -> float:
    """After so many that failed."""
    return min(_FIRST_PAUSE_SECONDS * _GROWTH ** (attempts - 1), _LONGEST_PAUSE_SECONDS)


def _log(row: DeliveryRow, ended: Attempt) -> None:
    facts = {"batch": row.batch_id, "receiver": row.origin, "attempt": row.attempts + 1}
    match ended.state:
        case DeliveryState.DELIVERED:
            log.info("webhook delivered", extra=facts)
        case DeliveryState.PENDING:
            log.warning("webhook failed", extra={**facts, "reason": ended.failure})
        case DeliveryState.GIVEN_UP:
            log.error("webhook given up", extra={**facts, "reason": ended.failure})
