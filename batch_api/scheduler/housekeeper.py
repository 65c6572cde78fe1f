"""What is old, removed or orphaned goes, in bites that keep nobody waiting for the writer."""

import asyncio
import logging

from batch_api.clock import Clock
from batch_api.scheduler.patience import patiently, to_the_end
from batch_api.settings import Settings
from batch_api.store import batches, deliveries, files, idempotency, progress, requests
from batch_api.store.blobs import KEEP_ORPHANS_DAYS, Blobs
from batch_api.store.database import Database
from batch_api.waiting import wait

log = logging.getLogger(__name__)

_ROUND_SECONDS = 1.0
_SELDOM_SECONDS = 3600.0
"""Longer than anything is between a published blob and its row."""
_BITE_ROWS = 1_000
_BITE_PAGES = 1_000
_SPARE_PAGES = 4_000
"""Of 4 KiB: free ones that the next answers will fill again are not given back."""
_KEEP_DELIVERIES_DAYS = 7
_DAY_SECONDS = 86_400


class Housekeeper:
    def __init__(
        self, *, database: Database, blobs: Blobs, settings: Settings, clock: Clock
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._settings = settings
        self._clock = clock
        self._suspects: set[str] = set()
        """Blobs of which no row spoke at the last look."""
        self._seldom_at = clock.monotonic()

    async def run(self, stop: asyncio.Event) -> None:
        while not await wait(stop, _ROUND_SECONDS):
            if self._clock.monotonic() >= self._seldom_at:
                self._seldom_at = self._clock.monotonic() + _SELDOM_SECONDS
                await patiently(self.sweep_once, 0)
                await patiently(self.drop_orphans_once, 0)
                await patiently(self.retire_once, 0)
                await to_the_end(self.forget_keys_once, stop)
                await to_the_end(self.forget_progress_once, stop)
                await to_the_end(self.forget_deliveries_once, stop)
            await to_the_end(self.drop_removed_once, stop)
            await to_the_end(self.shrink_once, stop)

    async def sweep(self) -> int:
        """Before anything is served: blobs of which no row speaks were left by a crash."""
        self._suspects = await self._blobs.names()
        return await self.sweep_once()

    async def sweep_once(self) -> int:
        """Set aside the blobs of which no row speaks, now as at the last look; return how many."""
        # The blobs are listed before the rows are read: a row comes after its blob.
        names = await self._blobs.names()
        async with self._database.read() as session:
            unknown = names.difference(await files.known_blobs(session))
        orphans = unknown & self._suspects
        for name in orphans:
            await self._blobs.set_aside(name, now=self._clock.now())
        self._suspects = unknown - orphans
        if orphans:
            log.warning("orphaned blobs set aside", extra={"blobs": len(orphans)})
        return len(orphans)

    async def drop_orphans_once(self) -> int:
        kept_seconds = KEEP_ORPHANS_DAYS * _DAY_SECONDS
        return await self._blobs.drop_orphans(set_aside_before=self._clock.now() - kept_seconds)

    async def forget_keys_once(self) -> int:
        async with self._database.write.begin() as session:
            return await idempotency.forget(session, now=self._clock.now(), limit=_BITE_ROWS)

    async def forget_progress_once(self) -> int:
        before = self._clock.now() - progress.KEPT_DAYS * _DAY_SECONDS
        async with self._database.write.begin() as session:
            return await progress.forget(session, before=before, limit=_BITE_ROWS)

    async def retire_once(self) -> int:
        """Let go what is older than the settings say; return how many files and batches that is."""
        settings, now = self._settings, self._clock.now()
        days = (settings.keep_files_days, settings.keep_results_days, settings.keep_batches_days)
        if days == (None, None, None):
            return 0
        uploaded, results, ended = (_before(now, kept) for kept in days)
        async with self._database.write.begin() as session:
            return await files.expire_old(
                session, uploaded_before=uploaded, results_before=results, now=now
            ) + await batches.retire(session, ended_before=ended, now=now)

    async def forget_deliveries_once(self) -> int:
        """Some of the webhooks that were delivered or given up a week ago; return how many."""
        before = self._clock.now() - _KEEP_DELIVERIES_DAYS * _DAY_SECONDS
        async with self._database.write.begin() as session:
            return await deliveries.drop_old(session, over_before=before, limit=_BITE_ROWS)

    async def drop_removed_once(self) -> int:
        """Some rows of a batch that is removed, and the batch's own with the last of them."""
        async with self._database.read() as session:
            number = await batches.removed(session)
        if number is None:
            return 0
        async with self._database.write.begin() as session:
            dropped = await requests.remove(session, number, limit=_BITE_ROWS)
            dropped += await progress.remove(session, number, limit=_BITE_ROWS - dropped)
            if dropped < _BITE_ROWS:
                await batches.drop(session, number)
        return dropped + 1

    async def shrink_once(self) -> int:
        """Give free pages of the database back to the file system; return how many."""
        return await self._database.shrink(by_pages=_BITE_PAGES, but_leave=_SPARE_PAGES)


def _before(now: float, kept_days: float | None) -> float:
    return 0.0 if kept_days is None else now - kept_days * _DAY_SECONDS
