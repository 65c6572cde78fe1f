"""Builds what `serve` and `run` share: store, workers, upstreams and scheduler in one process."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry

from batch_api import failpoints
from batch_api.clock import Clock
from batch_api.commands.listening import held_port
from batch_api.commands.models import check_model
from batch_api.metrics import new_registry
from batch_api.receivers import Receivers
from batch_api.scheduler.metrics import SchedulerMetrics
from batch_api.scheduler.scheduler import Scheduler
from batch_api.settings import Settings, served_name
from batch_api.store import files
from batch_api.store.blobs import BLOBS_FOLDER, Blobs, are_gone
from batch_api.store.database import Database, DataFolderUnusable, opening
from batch_api.supervisor import WorkerProcess, supervised, visible_gpus
from batch_api.upstreams import Upstreams


@dataclass(frozen=True, slots=True)
class Embedded:
    database: Database
    blobs: Blobs
    upstreams: Upstreams
    scheduler: Scheduler
    clock: Clock
    registry: CollectorRegistry
    has_own_workers: bool


@asynccontextmanager
async def embedded(settings: Settings) -> AsyncIterator[Embedded]:
    """Raises Unusable and DiskFailed, also in an exception group."""
    failpoints.arm(settings.failpoints)
    clock, registry = Clock(), new_registry()
    database = await Database.open(settings.data_dir)
    try:
        with opening(settings.data_dir):
            await _check_files(database, settings.data_dir / BLOBS_FOLDER)
            blobs = Blobs(settings.data_dir / BLOBS_FOLDER, min_free_bytes=settings.min_free_bytes)
        async with (
            _upstreams(settings) as upstreams,
            _receivers(settings) as receivers,
            asyncio.TaskGroup() as group,
        ):
            scheduler = Scheduler(
                database=database,
                blobs=blobs,
                upstreams=upstreams,
                settings=settings,
                clock=clock,
                metrics=SchedulerMetrics(registry),
                receivers=receivers,
            )
            with opening(settings.data_dir):
                await scheduler.recover()
            watch = group.create_task(database.failed())
            yield Embedded(
                database,
                blobs,
                upstreams,
                scheduler,
                clock,
                registry,
                has_own_workers=not settings.upstream,
            )
            watch.cancel()
    finally:
        await database.close()


async def _check_files(database: Database, folder: Path) -> None:
    """Raises DataFolderUnusable: without its files, a server would end each batch for good."""
    async with database.read() as session:
        needed = await files.needed_blobs(session)
    if await asyncio.to_thread(are_gone, folder, needed):
        raise DataFolderUnusable(
            f"None of the files that the database speaks of is in {folder}: mount the disk that "
            "has them, or restore a backup."
        )


@asynccontextmanager
async def _upstreams(settings: Settings) -> AsyncIterator[Upstreams]:
    """Those that the settings name, or workers of our own."""
    gpus: Sequence[str | None] = [] if settings.upstream else await visible_gpus() or [None]
    if gpus:
        await asyncio.to_thread(check_model, settings.model)
    with ExitStack() as ports:
        workers = [_worker(settings, gpu, ports.enter_context(held_port())) for gpu in gpus]
        async with supervised(workers):
            upstreams = Upstreams(
                settings.upstream or [worker.url for worker in workers],
                timeout_seconds=settings.request_timeout_seconds,
                most_in_flight=settings.max_in_flight,
                max_answer_bytes=settings.max_answer_bytes,
                are_starting=not settings.upstream,
            )
            try:
                yield upstreams
            finally:
                await upstreams.close()


@asynccontextmanager
async def _receivers(settings: Settings) -> AsyncIterator[Receivers | None]:
    """None without a secret: what is not signed is not sent."""
    secret = settings.webhook_secret
    if secret is None:
        yield None
    else:
        async with Receivers(secret.get_secret_value()) as receivers:
            yield receivers


def _worker(settings: Settings, gpu: str | None, port: int) -> WorkerProcess:
    """For that GPU, or for the CPU."""
    return WorkerProcess(
        model=settings.model,
        task=settings.task,
        served_model_name=served_name(settings.model),
        port=port,
        gpu=gpu,
        max_length=settings.max_length,
        max_sequences=settings.max_sequences,
        dtype=settings.dtype,
        log_level=settings.log_level,
    )
