"""Validating: reads the input of new batches and makes a row of every line."""

import asyncio
import logging
from pathlib import Path

from batch_api.clock import Clock
from batch_api.failpoints import failpoint
from batch_api.lifecycle import BatchStatus
from batch_api.scheduler.earlier import AnswersSpoilt, EarlierAnswers
from batch_api.scheduler.fairness import Shares
from batch_api.scheduler.metrics import SchedulerMetrics
from batch_api.scheduler.patience import patiently
from batch_api.scheduler.reading import InputReader, Limits
from batch_api.scheduler.wakeup import Wakeup
from batch_api.schemas.lines import LineRules, Problem
from batch_api.settings import Settings
from batch_api.store import batches, files, requests
from batch_api.store.batches import Tally
from batch_api.store.blobs import Blobs
from batch_api.store.database import Database
from batch_api.store.tables import BatchRow
from batch_api.store.trouble import passes
from batch_api.unusable import UpstreamUnusable
from batch_api.upstreams import Upstreams
from batch_api.waiting import wait

log = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_FORGET_ROWS = 1_000

NO_INPUT = Problem(
    "invalid_request",
    "The input file, or the answers to take over, are gone, spoilt or can't be read.",
    "file_id",
)

_ENDS = ((BatchStatus.FAILED, batches.fail), (BatchStatus.CANCELLED, batches.abandon))
"""Of a batch that is not valid."""


class Intake:
    def __init__(
        self,
        *,
        database: Database,
        blobs: Blobs,
        upstreams: Upstreams,
        settings: Settings,
        clock: Clock,
        wakeup: Wakeup,
        metrics: SchedulerMetrics,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._upstreams = upstreams
        self._clock = clock
        self._wakeup = wakeup
        self._metrics = metrics
        self._stop = asyncio.Event()
        self.waits_for: str | None = None
        self._shares = Shares()
        self._is_one_model = not settings.allow_mixed_models
        self._most_queued = settings.max_queued_lines
        self._webhook_urls = settings.webhook_urls
        self._limits = Limits(
            lines=settings.max_batch_lines,
            line_bytes=settings.max_line_bytes,
            file_bytes=settings.max_batch_file_bytes,
        )

    async def run(self, stop: asyncio.Event) -> None:
        bell = self._wakeup.bell()
        self._stop = stop
        while not stop.is_set():
            bell.clear()
            if not await patiently(self.validate_once, False):
                await wait(bell, _POLL_SECONDS)

    async def validate_once(self) -> bool:
        """Validate the most urgent new batch, if there is one and its models can be known."""
        batch = await self._next()
        if batch is None:
            return False
        rules = await self._rules(batch)
        if rules is None:
            return False
        await self._validate(batch, rules)
        self._shares.charge(batch.tenant, batch.input_bytes)
        self._wakeup.ring()
        return True

    async def _next(self) -> BatchRow | None:
        """Of the tenant of whose batches the fewest bytes were read."""
        async with self._database.read() as session:
            tenants = await batches.tenants_to_validate(session)
            if not tenants:
                return None
            self._shares.admit(tenants)
            tenant = min(tenants, key=self._shares.__getitem__)
            return await batches.to_validate(session, tenant=tenant, now=self._clock.now())

    async def _rules(self, batch: BatchRow) -> LineRules | None:
        """None while no upstream tells its models; a batch that is over need not wait for that."""
        is_due = batch.expires_at is not None and batch.expires_at <= self._clock.now()
        if batch.status == BatchStatus.CANCELLING or is_due:
            return LineRules(batch.endpoint, None, is_one_model=self._is_one_model)
        try:
            models = await self._upstreams.models()
        except UpstreamUnusable as error:
            if self.waits_for is None:
                level = logging.INFO if self._upstreams.are_starting else logging.WARNING
                log.log(level, "validation waits for an upstream", extra={"reason": str(error)})
            self.waits_for = str(error)
            return None
        self.waits_for = None
        # An upstream that doesn't answer may serve a model that no other knows.
        known = models.ids if models.are_all else None
        return LineRules(batch.endpoint, known, is_one_model=self._is_one_model)

    async def _validate(self, batch: BatchRow, rules: LineRules) -> None:
        await self._forget(batch)  # what a validation left that was cut off by a crash
        reader = InputReader(self._blobs.path(batch.input_file_id), rules, self._limits)
        try:
            earlier = await asyncio.to_thread(EarlierAnswers, self._earlier_output(batch))
            await self._insert(batch, reader, earlier)
            if not (self._stop.is_set() or reader.problems):
                earlier.check_all_taken(batch.earlier_completed)
        except (OSError, AnswersSpoilt) as error:
            if passes(error):
                raise
            log.error(
                "input is gone, spoilt or can't be read",
                extra={"batch": batch.id, "reason": str(error)},
            )
            await self._refuse(batch, [NO_INPUT])
            return
        if self._stop.is_set():
            return
        if problems := reader.problems or await self._check_queue(
            batch, reader.total - earlier.tally.completed
        ):
            await self._refuse(batch, problems)
        else:
            await self._accept(batch, reader.total, earlier.tally)

    async def _insert(self, batch: BatchRow, reader: InputReader, earlier: EarlierAnswers) -> None:
        """What comes after the first problem is read for more of them, and not inserted."""
        while not self._stop.is_set() and (page := await asyncio.to_thread(reader.page)):
            if reader.problems:
                continue
            portions = earlier.portions(page)
            while portion := await asyncio.to_thread(next, portions, None):
                async with self._database.write.begin() as session:
                    await requests.add(session, batch.number, portion)

    def _earlier_output(self, batch: BatchRow) -> Path | None:
        id = batch.earlier_output_file_id
        return None if id is None else self._blobs.path(id)

    async def _check_queue(self, batch: BatchRow, lines: int) -> list[Problem]:
        """The queue of its tenant only gets shorter meanwhile: what adds to it is this."""
        if batch.status == BatchStatus.CANCELLING:
            return []
        async with self._database.of(batch.tenant).read() as session:
            queued = await batches.count_queued_lines(session)
        if queued + lines <= self._most_queued:
            return []
        message = (
            f"Enqueued request limit reached: Limit {self._most_queued}, enqueued {queued}, "
            f"requested {lines}. Please try again once some in_progress batches are completed."
        )
        return [Problem("token_limit_exceeded", message)]

    async def _forget(self, batch: BatchRow) -> None:
        forgotten = _FORGET_ROWS
        while forgotten == _FORGET_ROWS:
            async with self._database.write.begin() as session:
                forgotten = await requests.remove(session, batch.number, limit=_FORGET_ROWS)

    async def _accept(self, batch: BatchRow, total: int, taken_over: Tally) -> None:
        await failpoint("cancel_reverted")
        async with self._database.write.begin() as session:
            await batches.set_total(session, batch.number, total)
            await batches.tally(session, batch.number, taken_over)
            started = await batches.start(session, batch.number, now=self._clock.now())
        facts = {"total": total, "taken_over": taken_over.completed, "started": started}
        log.info("batch validated", extra={"batch": batch.id, **facts})

    async def _refuse(self, batch: BatchRow, problems: list[Problem]) -> None:
        errors = [problem.as_json() for problem in problems]
        now = self._clock.now()
        ended: BatchStatus | None = None
        await self._forget(batch)
        async with self._database.write.begin() as session:
            for status, end in _ENDS:
                if await end(
                    session, batch.number, errors=errors, now=now, webhook_urls=self._webhook_urls
                ):
                    ended = status
                    break
            let_go = await files.let_go(session, batch.read_file_ids)
        for id in let_go:
            await self._blobs.delete(id)
        log.info("batch not valid", extra={"batch": batch.id, "problems": len(problems)})
        if ended is not None:
            self._metrics.batch_ended(ended, seconds=now - batch.created_at)
