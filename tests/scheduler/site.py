"""A store, a clock and an upstream, and the scheduler's parts between them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry

from batch_api.lifecycle import BatchStatus
from batch_api.receivers import Receivers
from batch_api.scheduler.finalizer import Finalizer
from batch_api.scheduler.housekeeper import Housekeeper
from batch_api.scheduler.intake import Intake
from batch_api.scheduler.janitor import Janitor
from batch_api.scheduler.ledger import Ledger
from batch_api.scheduler.metrics import SchedulerMetrics
from batch_api.scheduler.notifier import Notifier
from batch_api.scheduler.scheduler import Scheduler
from batch_api.scheduler.wakeup import Wakeup
from batch_api.settings import Settings
from batch_api.store import batches, files
from batch_api.store.blobs import Blobs
from batch_api.store.database import Database
from batch_api.store.tables import BatchRow
from batch_api.store.tenancy import DEFAULT_TENANT
from batch_api.upstreams import Upstreams
from tests.clock import TurnableClock
from tests.standin import MODEL, Standin
from tests.store import rows

CHAT = "/v1/chat/completions"
INPUT = "file-in"

_LOOK_SECONDS = 0.01


def question(custom_id: str, text: str = "hi", *, model: str = MODEL) -> bytes:
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    return line(custom_id, msgspec.json.encode(body))


def questions(count: int, text: str = "hi") -> bytes:
    return b"".join(question(f"row-{number}", f"{text} {number}") for number in range(1, count + 1))


def line(custom_id: str, body: bytes, *, url: str = CHAT) -> bytes:
    fields = {"custom_id": custom_id, "method": "POST", "url": url, "body": msgspec.Raw(body)}
    return msgspec.json.encode(fields) + b"\n"


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110 what the other side of a socket does rings no bell
        await asyncio.sleep(_LOOK_SECONDS)


@dataclass
class Site:
    database: Database
    blobs: Blobs
    clock: TurnableClock
    settings: Settings
    upstreams: Upstreams
    standin: Standin
    url: str
    """Of the stand-in."""
    wakeup: Wakeup = field(default_factory=Wakeup)
    receivers: Receivers | None = None
    registry: CollectorRegistry = field(init=False)
    metrics: SchedulerMetrics = field(init=False)

    def __post_init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = SchedulerMetrics(self.registry)

    @property
    def intake(self) -> Intake:
        return Intake(
            database=self.database,
            blobs=self.blobs,
            upstreams=self.upstreams,
            settings=self.settings,
            clock=self.clock,
            wakeup=self.wakeup,
            metrics=self.metrics,
        )

    @property
    def finalizer(self) -> Finalizer:
        return Finalizer(
            database=self.database,
            blobs=self.blobs,
            settings=self.settings,
            clock=self.clock,
            wakeup=self.wakeup,
            metrics=self.metrics,
        )

    @property
    def janitor(self) -> Janitor:
        return Janitor(
            database=self.database,
            blobs=self.blobs,
            clock=self.clock,
            wakeup=self.wakeup,
            metrics=self.metrics,
        )

    @property
    def housekeeper(self) -> Housekeeper:
        return Housekeeper(
            database=self.database, blobs=self.blobs, settings=self.settings, clock=self.clock
        )

    @property
    def ledger(self) -> Ledger:
        return Ledger(
            database=self.database,
            clock=self.clock,
            wakeup=self.wakeup,
            metrics=self.metrics,
            lease_seconds=self.settings.lease_seconds,
        )

    @property
    def notifier(self) -> Notifier:
        return Notifier(
            database=self.database,
            settings=self.settings,
            clock=self.clock,
            wakeup=self.wakeup,
            receivers=self.receivers,
            metrics=self.metrics,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Scheduler]:
        """The whole scheduler, until the block ends."""
        scheduler = Scheduler(
            database=self.database,
            blobs=self.blobs,
            upstreams=self.upstreams,
            settings=self.settings,
            clock=self.clock,
            metrics=self.metrics,
            receivers=self.receivers,
        )
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(scheduler.run(stop))
            try:
                yield scheduler
            finally:
                stop.set()

    async def run(self, number: int) -> BatchRow:
        """The batch at its end. Time flies meanwhile, so that delays are short."""
        async with self.running() as scheduler:
            while not (await self.status(number)).is_final:
                await asyncio.sleep(_LOOK_SECONDS)
                self.clock.turn(1.0)
                scheduler.ring()
        return await self.batch(number)

    async def submit(
        self,
        content: bytes,
        *,
        id: str = "batch_1",
        input_id: str = INPUT,
        tenant: str = DEFAULT_TENANT,
        expires_at: int | None = None,
        output_expires_after_seconds: int | None = None,
    ) -> int:
        """The number of a new batch of an uploaded file."""
        await self.upload(content, input_id)
        async with self.database.of(tenant).write.begin() as session:
            batch = batches.add(
                session,
                id=id,
                endpoint=CHAT,
                completion_window="24h",
                input_file_id=input_id,
                input_bytes=len(content),
                output_file_id=f"file-out-{id}",
                error_file_id=f"file-err-{id}",
                created_at=int(self.clock.now()),
                expires_at=expires_at,
                output_expires_after_seconds=output_expires_after_seconds,
            )
        return batch.number

    async def upload(self, content: bytes, id: str = INPUT) -> None:
        async with self.blobs.writing(id) as writer:
            await writer.write(content)
            await self.blobs.publish(id, writer)
        await self.delete_file(id)
        await rows.add_file(self.database, id)

    async def put_blobs(self, *ids: str) -> None:
        """Without rows."""
        for id in ids:
            async with self.blobs.writing(id) as writer:
                await writer.write(b"x")
                await self.blobs.publish(id, writer)

    async def delete_file(self, id: str = INPUT) -> None:
        """The row; its bytes are for whoever holds them."""
        async with self.database.write.begin() as session:
            await files.remove(session, id)

    async def cancel(self, number: int) -> bool:
        batch = await self.batch(number)
        async with self.database.write.begin() as session:
            return await batches.cancel(session, batch.id, now=self.clock.now())

    async def batch(self, number: int) -> BatchRow:
        return await rows.batch(self.database, number)

    async def status(self, number: int) -> BatchStatus:
        return await rows.status(self.database, number)

    async def counts(self, number: int) -> tuple[int | None, int, int]:
        batch = await self.batch(number)
        return batch.total, batch.completed, batch.failed

    async def output(self, number: int) -> list[dict[str, Any]]:
        """The lines of the output file; none if there is no such file."""
        return await self._lines((await self.batch(number)).output_file_id)

    async def errors(self, number: int) -> list[dict[str, Any]]:
        return await self._lines((await self.batch(number)).error_file_id)

    async def _lines(self, id: str) -> list[dict[str, Any]]:
        async with self.database.read() as session:
            row = await files.get(session, id, now=self.clock.now())
        if row is None:
            return []
        content = self.blobs.path(id).read_bytes()
        assert len(content) == row.bytes > 0
        return [msgspec.json.decode(line) for line in content.splitlines()]

    def blobs_on_disk(self) -> set[str]:
        return {path.name for path in self.blobs.path("any").parent.iterdir()}


def ids(lines: list[dict[str, Any]]) -> list[str]:
    return [line["custom_id"] for line in lines]
