"""Leases that ran out, deadlines, what has expired, and answers that the files now have."""

import asyncio
import logging
from collections.abc import Callable

from batch_api.clock import Clock
from batch_api.failpoints import failpoint
from batch_api.lifecycle import RequestState
from batch_api.scheduler.metrics import SchedulerMetrics
from batch_api.scheduler.patience import patiently, to_the_end
from batch_api.scheduler.wakeup import Wakeup
from batch_api.store import batches, files, requests, uploads
from batch_api.store.blobs import Blobs
from batch_api.store.database import Database
from batch_api.store.tables import BatchRow
from batch_api.waiting import wait

log = logging.getLogger(__name__)

_ROUND_SECONDS = 1.0
_TRIM_ROWS = 1_000


class Janitor:
    def __init__(
        self,
        *,
        database: Database,
        blobs: Blobs,
        clock: Clock,
        wakeup: Wakeup,
        metrics: SchedulerMetrics,
        may_reclaim: Callable[[], bool] = lambda: True,
    ) -> None:
        """`may_reclaim`: not while answers wait to be recorded, for they would be late then."""
        self._database = database
        self._blobs = blobs
        self._clock = clock
        self._wakeup = wakeup
        self._metrics = metrics
        self._may_reclaim = may_reclaim

    async def run(self, stop: asyncio.Event) -> None:
        while not await wait(stop, _ROUND_SECONDS):
            if self._may_reclaim():
                await patiently(self.reclaim_once, 0)
            await patiently(self.expire_once, 0)
            await patiently(self.drop_expired_files_once, 0)
            await patiently(self.expire_uploads_once, 0)
            await to_the_end(self.trim_once, stop)

    async def recover(self) -> None:
        """Once, before anything else runs: what a dead process left comes back."""
        async with self._database.write.begin() as session:
            recovered = await requests.recover(session)
        await failpoint("recovery_crash_loop")
        log.info("recovered", extra={"requests": recovered})
        self._metrics.recovered(recovered, at_start=True)

    async def reclaim_once(self) -> int:
        """Take back the leases that ran out."""
        now = self._clock.monotonic()
        async with self._database.read() as session:
            if not await requests.is_any_overdue(session, now=now):
                return 0
        async with self._database.write.begin() as session:
            reclaimed = await requests.reclaim(session, now=now)
        log.warning("leases ran out", extra={"requests": reclaimed})
        self._metrics.recovered(reclaimed, at_start=False)
        self._wakeup.ring()
        return reclaimed

    async def expire_once(self) -> int:
        """Cut off the batches whose deadline has come."""
        now = self._clock.now()
        async with self._database.read() as session:
            due = await batches.due(session, now=now)
        return sum([await self._expire(batch, now) for batch in due])

    async def drop_expired_files_once(self) -> int:
        async with self._database.read() as session:
            expired = await files.expired(session, now=self._clock.now())
        for id in expired:
            async with self._database.write.begin() as session:
                await files.remove(session, id)
                is_held = await files.is_held(session, id)
            if not is_held:
                await self._blobs.delete(id)
        return len(expired)

    async def expire_uploads_once(self) -> int:
        """Give up the uploads that were not completed in time; return how many."""
        async with self._database.read() as session:
            overdue = await uploads.overdue(session, now=self._clock.now())
        for number in overdue:
            async with self._database.write.begin() as session:
                # Completed in this very moment, it has no parts any more.
                await uploads.expire(session, number)
                dropped = await uploads.remove_parts(session, number)
            for id in dropped:
                await self._blobs.delete(id)
        return len(overdue)

    async def trim_once(self) -> int:
        """Drop some answers of a batch that is over; return how many."""
        async with self._database.read() as session:
            number = await batches.untrimmed(session)
        if number is None:
            return 0
        async with self._database.write.begin() as session:
            trimmed = await requests.trim(session, number, limit=_TRIM_ROWS)
            if trimmed < _TRIM_ROWS:
                await batches.mark_trimmed(session, number, now=self._clock.now())
        return trimmed

    async def _expire(self, batch: BatchRow, now: float) -> bool:
        async with self._database.write.begin() as session:
            if not await batches.cut_off(session, batch.number, now=now):
                return False
            unrun = await requests.end_unrun(
                session, batch.number, RequestState.EXPIRED, leased_too=True
            )
        self._metrics.ended(RequestState.EXPIRED, unrun)
        log.info("batch expired", extra={"batch": batch.id})
        self._wakeup.ring()
        return True
