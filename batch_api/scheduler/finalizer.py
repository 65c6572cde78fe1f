"""Finalizing and cancelling: writes the output and error files and ends the batch.

Nothing here depends on when it runs: a second run after a crash writes the same bytes under the
same ids.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial

from sqlalchemy.ext.asyncio import AsyncSession

from batch_api.clock import Clock
from batch_api.failpoints import failpoint
from batch_api.lifecycle import BatchStatus, RequestState
from batch_api.scheduler.metrics import SchedulerMetrics
from batch_api.scheduler.patience import patiently
from batch_api.scheduler.wakeup import Wakeup
from batch_api.schemas.ids import line_id
from batch_api.schemas.lines import unanswered_line
from batch_api.settings import Settings
from batch_api.store import batches, files, requests
from batch_api.store.blobs import Blobs, BlobWriter, Written
from batch_api.store.database import Database
from batch_api.store.requests import Outcome
from batch_api.store.tables import BatchRow
from batch_api.waiting import wait

log = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_PAGE_LINES = 500
_PAGE_BYTES = 8 * 1024 * 1024
_UNANSWERED = {
    RequestState.EXPIRED: (
        "batch_expired",
        "This request could not be run before the batch's completion window was over.",
    ),
    RequestState.CANCELLED: (
        "batch_cancelled",
        "This request could not be run before the batch was cancelled.",
    ),
}


class Finalizer:
    def __init__(
        self,
        *,
        database: Database,
        blobs: Blobs,
        settings: Settings,
        clock: Clock,
        wakeup: Wakeup,
        metrics: SchedulerMetrics,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._settings = settings
        self._clock = clock
        self._wakeup = wakeup
        self._metrics = metrics
        self._stop = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        bell = self._wakeup.bell()
        self._stop = stop
        while not stop.is_set():
            bell.clear()
            if not await patiently(self.finalize_once, 0):
                await wait(bell, _POLL_SECONDS)

    async def finalize_once(self) -> int:
        """End every batch that can end now, but begin none after a stop; return how many did."""
        async with self._database.read() as session:
            rows = await batches.open_ones(session, BatchStatus.FINALIZING, BatchStatus.CANCELLING)
        ended = 0
        for row in rows:
            if row.total is not None and not self._stop.is_set():
                ended += await patiently(partial(self._finalize, row), False)
        return ended

    async def _finalize(self, batch: BatchRow) -> bool:
        if batch.status == BatchStatus.CANCELLING and not await self._wind_up(batch):
            return False
        async with AsyncExitStack() as stack:
            output = await stack.enter_async_context(self._blobs.writing(batch.output_file_id))
            error = await stack.enter_async_context(self._blobs.writing(batch.error_file_id))
            await self._write(batch, output, error)
            written = {
                id: await self._blobs.publish(id, writer)
                for id, writer in ((batch.output_file_id, output), (batch.error_file_id, error))
                if writer.bytes
            }
            await failpoint("finalization_strand")
        return await self._end(batch, written)

    async def _wind_up(self, batch: BatchRow) -> bool:
        """Cancel what is not in flight; whether nothing is in flight, or its time is over."""
        now = self._clock.now()
        assert batch.cancelling_at is not None
        is_over = now >= batch.cancelling_at + self._settings.cancel_grace_seconds
        async with self._database.write.begin() as session:
            unrun = await requests.end_unrun(
                session, batch.number, RequestState.CANCELLED, leased_too=is_over
            )
            is_wound_up = not await requests.is_any_leased(session, batch.number)
            if is_wound_up:
                await batches.mark_finalizing(session, batch.number, now=now)
        self._metrics.ended(RequestState.CANCELLED, unrun)
        return is_wound_up

    async def _write(self, batch: BatchRow, output: BlobWriter, error: BlobWriter) -> None:
        lines = 0
        async for outcome in self._outcomes(batch.number):
            writer = output if outcome.state == RequestState.COMPLETED else error
            await writer.write(outcome.answer or _unanswered(batch.id, outcome))
            lines += 1
        assert lines == batch.total, f"{lines} of {batch.total} lines have ended"

    async def _outcomes(self, batch_number: int) -> AsyncIterator[Outcome]:
        page: list[Outcome] | None = None
        while page is None or page:
            after_line = page[-1].line if page else 0
            async with self._database.read() as session:
                page = await requests.outcomes(
                    session,
                    batch_number,
                    after_line=after_line,
                    limit=_PAGE_LINES,
                    most_bytes=_PAGE_BYTES,
                )
            for outcome in page:
                yield outcome

    async def _end(self, batch: BatchRow, written: dict[str, Written]) -> bool:
        """Publish the files and the final status in one transaction."""
        await failpoint("terminal_overwrite")
        now = self._clock.now()
        left = BatchStatus(batch.status)
        async with self._database.of(batch.tenant).write.begin() as session:
            final = await self._final_status(session, batch)
            if not await batches.finish(
                session,
                batch.number,
                left,
                final,
                now=now,
                webhook_urls=self._settings.webhook_urls,
            ):
                return False
            for id, blob in written.items():
                _add_file(session, batch, id, blob, int(now))
            let_go = await files.let_go(session, batch.read_file_ids)
        for id in let_go:
            await self._blobs.delete(id)
        self._wakeup.ring()
        log.info("batch ended", extra={"batch": batch.id, "status": final})
        self._metrics.batch_ended(final, seconds=now - batch.created_at)
        return True

    async def _final_status(self, session: AsyncSession, batch: BatchRow) -> BatchStatus:
        if batch.status == BatchStatus.CANCELLING:
            return BatchStatus.CANCELLED
        if await requests.is_any_expired(session, batch.number):
            return BatchStatus.EXPIRED
        return BatchStatus.COMPLETED


def _unanswered(batch_id: str, outcome: Outcome) -> bytes:
    code, message = _UNANSWERED[outcome.state]
    return unanswered_line(
        id=line_id(batch_id, outcome.line),
        custom_id=outcome.custom_id,
        code=code,
        message=message,
    )


def _add_file(session: AsyncSession, batch: BatchRow, id: str, blob: Written, now: int) -> None:
    kind = "output" if id == batch.output_file_id else "error"
    keep_seconds = batch.output_expires_after_seconds
    files.add(
        session,
        id=id,
        filename=f"{batch.id}_{kind}.jsonl",
        purpose="batch_output",
        bytes=blob.bytes,
        sha256=blob.sha256,
        created_at=now,
        expires_at=None if keep_seconds is None else now + keep_seconds,
    )
