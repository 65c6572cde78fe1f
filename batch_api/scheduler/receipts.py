"""What became of attempts to tell receivers, recorded in groups: what ended during the last.

So a crash repeats what was told during one commit, and a fast receiver waits for none.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from batch_api.clock import Clock
from batch_api.lifecycle import DeliveryState
from batch_api.scheduler.metrics import SchedulerMetrics
from batch_api.scheduler.patience import patiently
from batch_api.store import deliveries
from batch_api.store.database import Database
from batch_api.store.deliveries import Attempt, Due
from batch_api.waiting import wait

log = logging.getLogger(__name__)

_MOST = 256
_TROUBLE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Receipt:
    due: Due
    attempt: Attempt


class Receipts:
    def __init__(self, *, database: Database, clock: Clock, metrics: SchedulerMetrics) -> None:
        self._database = database
        self._clock = clock
        self._metrics = metrics
        self._waiting: list[Receipt] = []
        self._some = asyncio.Event()
        self._closed = asyncio.Event()
        self._is_stuck = False

    @property
    def numbers(self) -> set[int]:
        """Of what was tried, and the store does not know it yet."""
        return {receipt.due.number for receipt in self._waiting}

    @property
    def have_room(self) -> bool:
        """While they can't be recorded nothing is to be tried: after a crash it would be again."""
        return not self._is_stuck and len(self._waiting) < _MOST

    def add(self, receipt: Receipt) -> None:
        self._waiting.append(receipt)
        self._some.set()

    @asynccontextmanager
    async def recording(self) -> AsyncIterator[None]:
        """Until the block has ended and all is recorded, or can't be."""
        self._closed.clear()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._record())
            yield
            self._closed.set()
            self._some.set()

    async def _record(self) -> None:
        while self._waiting or not self._closed.is_set():
            await self._some.wait()
            is_last = self._closed.is_set()
            self._is_stuck = not await patiently(self._record_group, False)
            if self._is_stuck and is_last:
                return
            if self._is_stuck:
                await wait(self._closed, _TROUBLE_SECONDS)

    async def _record_group(self) -> bool:
        """True."""
        group = list(self._waiting)
        async with self._database.write.begin() as session:
            attempts = [receipt.attempt for receipt in group]
            recorded = await deliveries.record(session, attempts, now=self._clock.now())
        del self._waiting[: len(group)]
        if not self._waiting:
            self._some.clear()
        for receipt in group:
            if receipt.due.number in recorded:  # what was over before is not told again
                self._metrics.told(receipt.attempt.state)
                _log(receipt)
        return True


def _log(receipt: Receipt) -> None:
    due, attempt = receipt.due, receipt.attempt
    facts = {"batch": due.batch_id, "receiver": due.origin, "attempt": due.attempts + 1}
    match attempt.state:
        case DeliveryState.DELIVERED:
            log.info("webhook delivered", extra=facts)
        case DeliveryState.PENDING:
            log.warning("webhook failed", extra={**facts, "reason": attempt.failure})
        case DeliveryState.GIVEN_UP:
            log.error("webhook given up", extra={**facts, "reason": attempt.failure})
