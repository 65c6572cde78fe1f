"""Builds what `serve` and `run` share: store, workers, upstreams and scheduler in one process."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from batch_api.clock import Clock
from batch_api.scheduler.scheduler import Scheduler
from batch_api.settings import DEMO_MODEL, DEMO_MODEL_NAME, Settings
from batch_api.store.blobs import Blobs
from batch_api.store.database import Database
from batch_api.supervisor import WorkerProcess, supervised, visible_gpus
from batch_api.upstream import Upstreams


@dataclass(frozen=True, slots=True)
class Embedded:
    database: Database
    blobs: Blobs
    upstreams: Upstreams
    scheduler: Scheduler
    clock: Clock


@asynccontextmanager
async def embedded(settings: Settings) -> AsyncIterator[Embedded]:
    """Raises Unusable, also in an exception group."""
    clock = Clock()
    database = await Database.open(settings.data_dir)
    try:
        blobs = Blobs(settings.data_dir / "files")
        workers = [] if settings.upstream else await _workers(settings)
        urls = settings.upstream or [worker.url for worker in workers]
        async with supervised(workers):
            upstreams = Upstreams(urls, timeout_seconds=settings.request_timeout_seconds)
            try:
                scheduler = Scheduler(
                    database=database,
                    blobs=blobs,
                    upstreams=upstreams,
                    settings=settings,
                    clock=clock,
                )
                await scheduler.recover()
                yield Embedded(database, blobs, upstreams, scheduler, clock)
            finally:
                await upstreams.close()
    finally:
        await database.close()


async def _workers(settings: Settings) -> list[WorkerProcess]:
    """One for each visible GPU, or one on the CPU."""
    gpus: list[str | None] = [*await visible_gpus()]
    is_demo = settings.model == str(DEMO_MODEL)
    return [
        WorkerProcess(
            model=settings.model,
            served_model_name=DEMO_MODEL_NAME if is_demo else None,
            port=_free_port(),
            gpu=gpu,
            log_level=settings.log_level,
        )
        for gpu in gpus or [None]
    ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
