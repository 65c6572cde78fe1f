"""The part that moves batches, as one thing to run."""

import asyncio

from batch_api.clock import Clock
from batch_api.receivers import Receivers
from batch_api.scheduler.dispatcher import Dispatcher
from batch_api.scheduler.finalizer import Finalizer
from batch_api.scheduler.housekeeper import Housekeeper
from batch_api.scheduler.intake import Intake
from batch_api.scheduler.janitor import Janitor
from batch_api.scheduler.metrics import SchedulerMetrics
from batch_api.scheduler.notifier import Notifier
from batch_api.scheduler.wakeup import Wakeup
from batch_api.settings import Settings
from batch_api.store.blobs import Blobs
from batch_api.store.database import Database
from batch_api.upstreams import Upstreams


class Scheduler:
    def __init__(
        self,
        *,
        database: Database,
        blobs: Blobs,
        upstreams: Upstreams,
        settings: Settings,
        clock: Clock,
        metrics: SchedulerMetrics,
        receivers: Receivers | None = None,
    ) -> None:
        self._wakeup = wakeup = Wakeup()
        self._intake = Intake(
            database=database,
            blobs=blobs,
            upstreams=upstreams,
            settings=settings,
            clock=clock,
            wakeup=wakeup,
            metrics=metrics,
        )
        self._dispatcher = Dispatcher(
            database=database,
            blobs=blobs,
            upstreams=upstreams,
            settings=settings,
            clock=clock,
            wakeup=wakeup,
            metrics=metrics,
        )
        self._finalizer = Finalizer(
            database=database,
            blobs=blobs,
            settings=settings,
            clock=clock,
            wakeup=wakeup,
            metrics=metrics,
        )
        self._housekeeper = Housekeeper(
            database=database, blobs=blobs, settings=settings, clock=clock
        )
        self._janitor = Janitor(
            database=database,
            blobs=blobs,
            clock=clock,
            wakeup=wakeup,
            metrics=metrics,
            may_reclaim=lambda: not self._dispatcher.is_stuck,
        )

        self._notifier = Notifier(
            database=database,
            settings=settings,
            clock=clock,
            wakeup=wakeup,
            receivers=receivers,
            metrics=metrics,
        )

    @property
    def waits_for(self) -> str | None:
        """Why nothing goes on, in words for a person; None while something does."""
        return self._intake.waits_for or self._dispatcher.waits_for

    def ring(self) -> None:
        """The store has news."""
        self._wakeup.ring()

    async def recover(self) -> None:
        """Once, before anything is served."""
        await self._janitor.recover()
        await self._housekeeper.sweep()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`, and what is in flight has ended within its grace period."""
        async with asyncio.TaskGroup() as group:
            for part in (
                self._intake,
                self._dispatcher,
                self._finalizer,
                self._janitor,
                self._housekeeper,
                self._notifier,
            ):
                group.create_task(part.run(stop))
            await stop.wait()
            self._wakeup.ring()
