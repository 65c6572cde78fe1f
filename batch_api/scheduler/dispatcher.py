"""In progress: keeps the upstreams busy with requests, and no busier than they can be."""

import asyncio
import logging
import random
from collections.abc import Mapping, Sequence
from typing import Any

from batch_api.clock import Clock
from batch_api.scheduler.answers import Answered, Away, Failed, Judge, Lost, Overloaded, Unsent
from batch_api.scheduler.backlog import Backlog, Errand, Source
from batch_api.scheduler.holdings import LeaseLost
from batch_api.scheduler.ledger import Ledger
from batch_api.scheduler.metrics import Again, SchedulerMetrics
from batch_api.scheduler.patience import patiently
from batch_api.scheduler.wakeup import Wakeup
from batch_api.schemas.ids import request_id
from batch_api.settings import Settings
from batch_api.store import batches
from batch_api.store.batches import Running
from batch_api.store.blobs import Blobs
from batch_api.store.database import Database
from batch_api.store.requests import Lease
from batch_api.unusable import (
    AnswerTooLarge,
    TooLate,
    UpstreamAway,
    UpstreamBroke,
    UpstreamTimedOut,
    UpstreamUnreachable,
)
from batch_api.upstreams import Upstreams
from batch_api.waiting import wait

log = logging.getLogger(__name__)

NOT_TAKEN = "no upstream takes requests"

_POLL_SECONDS = 1.0
_QUEUED = 3
"""Requests ready for the lanes, for each of them: enough to send while the next are leased."""
_FIRST_RETRY_SECONDS = 1.0
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 30.0


class Dispatcher:
    """`max_in_flight` lanes, each with one request at a time, fed from a short queue."""

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
        self._settings = settings
        self._clock = clock
        self._wakeup = wakeup
        self._bell = wakeup.bell()
        self._metrics = metrics
        self._ledger = Ledger(
            database=database,
            clock=clock,
            wakeup=wakeup,
            metrics=metrics,
            lease_seconds=settings.lease_seconds,
        )
        self._pause = Pause(clock)
        self._running: Sequence[Running] = ()
        self._is_short_of_room = False
        self._sources: Mapping[int, Source] = {}
        self._backlog = Backlog(enough=(_QUEUED - 1) * settings.max_in_flight)
        self._outstanding = 0
        """Requests leased and not yet seen to, in flight or before it."""

    @property
    def is_stuck(self) -> bool:
        """Answers can't be recorded now."""
        return self._ledger.is_stuck

    @property
    def waits_for(self) -> str | None:
        if not self._has_room:
            return "the disk is full"
        is_away = self._pause.lasts and not self._upstreams.are_busy
        return NOT_TAKEN if is_away else None

    async def run(self, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ledger.record())
            group.create_task(self._ledger.renew())
            lanes = [
                group.create_task(self._lane(stop)) for _ in range(self._settings.max_in_flight)
            ]
            await self._feed(stop)
            await self._drain(lanes)
            self._ledger.close()

    async def _feed(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self._bell.clear()
            if not await patiently(self.feed_once, 0):
                await wait(self._bell, _POLL_SECONDS)

    async def feed_once(self) -> int:
        """Queue requests for the lanes, if the queue runs low; return how many."""
        await self._refresh_sources()
        await self._ledger.drop_lost(self._sources)
        self._look_for_room()
        if not self._backlog.is_low or self._pause.is_on or not self._has_room:
            return 0
        if self._backlog.is_all_read:
            await self._lease()
        return 0 if self._backlog.is_all_read else await self._read()

    async def _read(self) -> int:
        page = await self._backlog.read()
        for answered in page:
            if isinstance(answered, Answered):
                self._ledger.enter(answered)
                self._outstanding -= 1
        return len(page)

    @property
    def _has_room(self) -> bool:
        """For the answers to what would be sent."""
        return not self.is_stuck and not self._is_short_of_room

    def _look_for_room(self) -> None:
        was_short, self._is_short_of_room = self._is_short_of_room, self._blobs.room.is_short()
        if self._is_short_of_room and not was_short:
            log.error("the disk is nearly full; nothing more is sent until there is room")

    async def _lease(self) -> None:
        running, sources = self._running, self._sources
        room = (1 + _QUEUED) * self._settings.max_in_flight - self._outstanding
        if room <= 0 or not any(batch.is_waiting for batch in running):
            return
        leases = await self._ledger.lease(running, room)
        self._outstanding += len(leases)
        self._backlog.add([(lease, sources[lease.batch_number]) for lease in leases])

    async def _refresh_sources(self) -> None:
        async with self._database.read() as session:
            self._running = await batches.running(session)
        before = self._sources
        self._sources = {
            batch.number: before.get(batch.number) or self._source(batch) for batch in self._running
        }
        if before.keys() - self._sources.keys():
            await self._withdraw()
            self._wakeup.ring()

    async def _withdraw(self) -> None:
        """Put back what was not sent of batches that no longer run."""
        unsent = self._backlog.withdraw(but_of=self._sources.keys())
        self._outstanding -= len(unsent)
        await self._ledger.put_back(unsent)

    def _source(self, batch: Running) -> Source:
        path, judge = self._blobs.path(batch.input_file_id), Judge(batch.id)
        return Source(batch.endpoint, path, judge, self._settings.allowed_media_hosts)

    async def _lane(self, stop: asyncio.Event) -> None:
        while (errand := await self._backlog.next()) is not None:
            if self._backlog.is_low:
                self._bell.set()
            await self._run(errand, stop)
            self._outstanding -= 1

    async def _run(self, errand: Errand, stop: asyncio.Event) -> None:
        """Send it until the upstream takes it, and see to what comes of it."""
        lease, suspicion = errand.lease, 0
        while True:
            await self._wait_to_send(lease, stop)
            if not self._may_send(lease, stop):
                break
            began = self._clock.monotonic()
            outcome = await self._send(errand, suspicion, stop)
            seconds = self._clock.monotonic() - began
            match outcome:
                case Answered() as answered:
                    self._pause.forget()
                    self._ledger.enter(answered.after(seconds))
                    return
                case Failed(doubts=doubts) as failed if suspicion >= doubts:
                    await self._try_again(lease, failed, seconds)
                    return
                case Failed(reason=reason):
                    log.warning("attempt broke in company", extra=_facts(lease, reason))
                    self._metrics.again(Again.COMPANY)
                    await wait(stop, _jittered(_FIRST_PAUSE_SECONDS * 2**suspicion))
                    suspicion += 1
                case Away():
                    self._metrics.again(Again.AWAY)
                    delay = _jittered(max(self._upstreams.longest_rest_seconds, _POLL_SECONDS))
                    await self._give_back(lease, was_tried=suspicion > 0, delay_seconds=delay)
                    return
                case Lost():
                    return
                case Unsent():
                    break
                case Overloaded(retry_after_seconds):
                    self._metrics.again(Again.REFUSED)
                    self._pause.begin(retry_after_seconds)
        await self._give_back(lease, was_tried=suspicion > 0)

    async def _give_back(
        self, lease: Lease, *, was_tried: bool, delay_seconds: float = 0.0
    ) -> None:
        if was_tried:
            failures = lease.failures
            await self._ledger.release(lease, failures=failures, delay_seconds=delay_seconds)
        else:
            await self._ledger.put_back([lease], delay_seconds=delay_seconds)

    async def _wait_to_send(self, lease: Lease, stop: asyncio.Event) -> None:
        """Until an upstream may take it and there is room for the answer, or nobody wants it."""
        while lease.batch_number in self._sources and not stop.is_set():
            if self._pause.is_on:
                await self._pause.pass_some(stop)
            elif not self._has_room:
                await wait(stop, _POLL_SECONDS)
            else:
                return

    def _may_send(self, lease: Lease, stop: asyncio.Event) -> bool:
        is_wanted = lease.batch_number in self._sources and not stop.is_set()
        return is_wanted and self._ledger.is_good(lease)

    async def _send(
        self, errand: Errand, suspicion: int, stop: asyncio.Event
    ) -> Answered | Failed | Away | Lost | Unsent | Overloaded:
        id, judge, lease = request_id(), errand.source.judge, errand.lease
        try:
            with self._ledger.using(lease):
                reply = await self._upstreams.send(
                    errand.source.endpoint,
                    errand.body,
                    priority="batch",
                    request_id=id,
                    suspicion=suspicion,
                    may_go=lambda: self._may_send(lease, stop),
                )
        except LeaseLost:
            return Lost()
        except TooLate:
            return Unsent()
        except UpstreamUnreachable as error:
            return Overloaded(error.rest_seconds)
        except UpstreamAway:
            return Away()
        except UpstreamTimedOut as error:
            return judge.timed_out(lease, error)
        except AnswerTooLarge as error:
            return judge.too_large(lease, error)
        except UpstreamBroke as error:
            return judge.broke(lease, error)
        return judge.judge(lease, reply, id)

    async def _try_again(self, lease: Lease, failed: Failed, seconds: float) -> None:
        failures = lease.failures + 1
        log.warning("attempt failed", extra=_facts(lease, failed.reason))
        if failures >= self._settings.max_attempts:
            self._ledger.enter(Answered(failed.settlement).after(seconds))
            return
        self._metrics.again(Again.FAILED)
        delay = _jittered(_FIRST_RETRY_SECONDS * 2 ** (failures - 1))
        await self._ledger.release(lease, failures=failures, delay_seconds=delay)

    async def _drain(self, lanes: Sequence[asyncio.Task[None]]) -> None:
        """Let what is in flight end, within the grace period; the next start takes the rest."""
        unsent = self._backlog.withdraw()
        self._backlog.end(readers=len(lanes))
        self._upstreams.wake()
        await self._ledger.put_back(unsent)
        await asyncio.wait(lanes, timeout=self._settings.shutdown_grace_seconds)
        for lane in lanes:
            lane.cancel()


class Pause:
    """While no upstream takes requests, nobody sends any; the pauses grow until one does."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until = 0.0
        self._next_seconds = _FIRST_PAUSE_SECONDS
        self.lasts = False
        """None has been taken since one began, though some may have been tried between two."""

    @property
    def is_on(self) -> bool:
        return self._clock.monotonic() < self._until

    def begin(self, wish_seconds: float | None) -> None:
        """Unless one is on already; as long as the upstream wishes, if it does."""
        if self.is_on:
            return
        seconds = wish_seconds or self._next_seconds
        if not wish_seconds:
            self._next_seconds = min(2 * self._next_seconds, _LONGEST_PAUSE_SECONDS)
        self._until = self._clock.monotonic() + seconds
        self.lasts = True
        log.info("waiting for an upstream to take requests", extra={"pause_seconds": seconds})

    async def pass_some(self, stop: asyncio.Event) -> None:
        """Wait until it is over, but not for long: who waits may have no reason to any more."""
        left = _jittered(self._until - self._clock.monotonic())
        await wait(stop, min(left, _POLL_SECONDS))

    def forget(self) -> None:
        """An upstream took a request: the next pause is a short one again."""
        self._next_seconds = _FIRST_PAUSE_SECONDS
        self.lasts = False


def _facts(lease: Lease, reason: str) -> dict[str, Any]:
    return {"line": lease.line, "attempt": lease.attempt, "reason": reason}


def _jittered(seconds: float) -> float:
    """Up to a quarter longer, so that what failed together does not come back together."""
    return max(seconds, 0.0) * random.uniform(1.0, 1.25)  # noqa: S311 no secret
