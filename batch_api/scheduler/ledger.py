"""The leases that this process holds, and how they end.

Answers are recorded in groups: what came in over a moment, in one transaction with the counts.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager

from sqlalchemy.ext.asyncio import AsyncSession

from batch_api.clock import Clock
from batch_api.failpoints import failpoint
from batch_api.lifecycle import RequestState
from batch_api.scheduler.answers import Answered
from batch_api.scheduler.fairness import Fairness
from batch_api.scheduler.holdings import Holdings
from batch_api.scheduler.metrics import SchedulerMetrics
from batch_api.scheduler.patience import patiently
from batch_api.scheduler.wakeup import Wakeup
from batch_api.store import batches, progress, requests
from batch_api.store.batches import Running, Tally, Usage
from batch_api.store.database import Database
from batch_api.store.requests import Lease, Settlement
from batch_api.waiting import wait

log = logging.getLogger(__name__)

GROUP_SECONDS = 0.05
GROUP_LINES = 500
_TROUBLE_SECONDS = 1.0
_RENEWALS = 3
"""Tries at a renewal before a lease runs out."""


class Ledger:
    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        wakeup: Wakeup,
        metrics: SchedulerMetrics,
        lease_seconds: float,
    ) -> None:
        self._database = database
        self._clock = clock
        self._wakeup = wakeup
        self._metrics = metrics
        self._lease_seconds = lease_seconds
        self._fairness = Fairness()
        self._held = Holdings(clock)
        self._answers: list[Answered] = []
        self._some = asyncio.Event()
        self._enough = asyncio.Event()
        self._closed = asyncio.Event()
        self.is_stuck = False
        """Answers can't be recorded now, nor leases renewed."""

    async def lease(self, running: Iterable[Running], limit: int) -> list[Lease]:
        """Up to `limit` requests, each batch its fair share."""
        now = self._clock.monotonic()
        until = now + self._lease_seconds
        leased: list[Lease] = []
        turns = self._fairness.round(running, limit)
        async with self._database.write.begin() as session:
            while turn := turns.next():
                batch, most = turn
                taken = await requests.lease(
                    session, batch.number, limit=most, now=now, until=until
                )
                turns.took(batch, taken, offered=most)
                leased += taken
        self._held.add(leased, until=until)
        return leased

    def is_good(self, lease: Lease) -> bool:
        """Whether its request may be sent now."""
        return self._held.is_good(lease)

    def using(self, lease: Lease) -> AbstractContextManager[None]:
        """The block is broken off when the lease is lost, and raises LeaseLost then."""
        return self._held.using(lease)

    async def drop_lost(self, running: Container[int]) -> int:
        """Break off what is done under leases that are void; `running`: batches, by number."""
        doubtful = self._held.doubtful(running)
        if not doubtful:
            return 0
        async with self._database.read() as session:
            attempts = await requests.attempts(session, [lease.id for lease in doubtful])
        return self._compare(doubtful, attempts)

    async def release(self, lease: Lease, *, failures: int, delay_seconds: float = 0.0) -> None:
        """After an attempt, to be tried again after the delay; or let it run out, if that fails."""
        await failpoint("worker_crash_strands_job")
        await self._let_go(
            [lease],
            lambda session, at: requests.release(session, lease, failures=failures, not_before=at),
            delay_seconds,
        )

    async def put_back(self, unsent: Sequence[Lease], *, delay_seconds: float = 0.0) -> None:
        """As release, of leases under which no upstream took anything: these were no attempts."""
        if not unsent:
            return
        await self._let_go(
            unsent,
            lambda session, at: requests.put_back(session, unsent, not_before=at),
            delay_seconds,
        )

    async def _let_go(
        self,
        leases: Sequence[Lease],
        statement: Callable[[AsyncSession, float], Awaitable[object]],
        delay_seconds: float,
    ) -> None:
        """`statement` gets the time before which they are not to be leased again."""
        self._held.drop(leases)
        not_before = self._clock.monotonic() + delay_seconds if delay_seconds else 0.0

        async def work() -> None:
            async with self._database.write.begin() as session:
                await statement(session, not_before)

        await patiently(work, None)

    def enter(self, answered: Answered) -> None:
        """To be recorded with the next group; its lease is held until then."""
        self._answers.append(answered)
        self._some.set()
        if len(self._answers) >= GROUP_LINES:
            self._enough.set()

    def close(self) -> None:
        """Nothing more will be entered."""
        for event in (self._closed, self._some, self._enough):
            event.set()

    async def record(self) -> None:
        """Record groups until the ledger is closed and nothing is left."""
        while self._answers or not self._closed.is_set():
            await self._some.wait()
            await wait(self._enough, GROUP_SECONDS)
            self.is_stuck = await patiently(self._catch_up, None) is None
            if self.is_stuck and await wait(self._closed, _TROUBLE_SECONDS):
                return

    async def _catch_up(self) -> int:
        """After trouble the leases first: they may have run out meanwhile."""
        if self.is_stuck:
            await self.renew_once()
        return await self.record_once()

    async def record_once(self) -> int:
        """Record what has come in, or keep it if that fails; return how many answers counted."""
        answers = self._answers.copy()
        counted = await self._record(answers) if answers else 0
        del self._answers[: len(answers)]
        self._held.drop(answer.settlement.lease for answer in answers)
        if not self._answers:
            self._some.clear()
        self._enough.clear()
        if late := len(answers) - counted:
            log.warning("late answers dropped", extra={"answers": late})
        return counted

    async def renew(self) -> None:
        """Prolong what is held, again and again, until the ledger is closed."""
        while not await wait(self._closed, self._lease_seconds / _RENEWALS):
            await patiently(self.renew_once, 0)

    async def renew_once(self) -> int:
        """How many are held now."""
        held = self._held.leases
        if not held:
            return 0
        await failpoint("zombie_owner_burns_inference")
        until = self._clock.monotonic() + self._lease_seconds
        async with self._database.write.begin() as session:
            renewed = await requests.renew(session, [lease.id for lease in held], until=until)
        self._compare(held, renewed)
        self._held.prolong(held, until=until)
        return len(self._held.leases)

    def _compare(self, leases: Sequence[Lease], attempts: Mapping[int, int]) -> int:
        """With what the store knows; how many of them are lost."""
        lost = len(self._held.compare(leases, attempts))
        if lost:
            log.warning("leases lost", extra={"requests": lost})
        return lost

    async def _record(self, answers: Sequence[Answered]) -> int:
        """How many of them counted."""
        done = False
        await failpoint("cancel_racing_completion")
        now, began = self._clock.now(), self._clock.monotonic()
        async with self._database.write.begin() as session:
            settled = await requests.settle(session, [answer.settlement for answer in answers])
            counted = _of(answers, settled)
            tallies = _tallies(counted)
            await progress.record(session, tallies, now=now)
            for number, tally in tallies.items():
                await batches.tally(session, number, tally)
                done |= await batches.finalize_if_done(session, number, now=now)
        seconds = self._clock.monotonic() - began
        self._metrics.recorded(counted, late=len(answers) - len(counted), seconds=seconds)
        await failpoint("duplicate_execution")
        if done:
            self._wakeup.ring()
        return len(counted)


def _of(answers: Iterable[Answered], settled: Iterable[Settlement]) -> list[Answered]:
    leases = {settlement.lease for settlement in settled}
    return [answer for answer in answers if answer.settlement.lease in leases]


def _tallies(answers: Iterable[Answered]) -> Mapping[int, Tally]:
    """By batch number."""
    groups: dict[int, list[Answered]] = defaultdict(list)
    for answer in answers:
        groups[answer.settlement.lease.batch_number].append(answer)
    return {number: _tally(group) for number, group in groups.items()}


def _tally(answers: Sequence[Answered]) -> Tally:
    completed = sum(answer.settlement.state == RequestState.COMPLETED for answer in answers)
    return Tally(
        completed=completed,
        failed=len(answers) - completed,
        refused=sum(answer.is_refused for answer in answers),
        usage=sum((answer.usage for answer in answers), Usage()),
        model=next((answer.model for answer in answers if answer.model), None),
        seconds=tuple(
            seconds for answer in answers if (seconds := answer.settlement.seconds) is not None
        ),
    )
