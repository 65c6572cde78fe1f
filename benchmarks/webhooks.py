"""How fast a backlog of webhooks goes to one receiver: so many to a receiver in its own process.

Run `python -m benchmarks.webhooks`; it prints webhooks a second, and the CPU time for each.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from aiohttp import web
from sqlalchemy import insert

from batch_api.clock import Clock
from batch_api.lifecycle import DeliveryState
from batch_api.metrics import new_registry
from batch_api.origins import origin
from batch_api.receivers import Receivers
from batch_api.scheduler.metrics import SchedulerMetrics
from batch_api.scheduler.notifier import Notifier
from batch_api.scheduler.wakeup import Wakeup
from batch_api.settings import Settings
from batch_api.store import totals
from batch_api.store.database import Database
from batch_api.store.tables import DeliveryRow

_SECRET = "whsec_dGhlIHNlY3JldCBvZiB0aGUgYmVuY2htYXJrcw=="
_LOOK_SECONDS = 0.1


async def _receive(told: Connection) -> None:
    async def take(request: web.Request) -> web.Response:
        await request.read()
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    told.send(runner.addresses[0][1])
    await asyncio.Event().wait()


def _receiver(told: Connection) -> None:
    asyncio.run(_receive(told))


@contextmanager
def _url() -> Iterator[str]:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_receiver, args=(theirs,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}/hook"
    finally:
        process.terminate()


async def _fill(database: Database, url: str, count: int) -> None:
    row = {
        "tenant": "default",
        "status": "completed",
        "ended_at": 1,
        "url": url,
        "origin": origin(url),
        "state": DeliveryState.PENDING,
        "attempts": 0,
        "next_at": 1.0,
    }
    async with database.write.begin() as session:
        rows = [{**row, "batch_id": f"batch_{number}"} for number in range(count)]
        await session.execute(insert(DeliveryRow), rows)


async def _run(folder: Path, url: str, count: int) -> None:
    database, stop = await Database.open(folder), asyncio.Event()
    await _fill(database, url, count)
    async with Receivers(_SECRET) as receivers:
        notifier = Notifier(
            database=database,
            settings=Settings(data_dir=folder, webhook_urls=(url,)),
            clock=Clock(),
            wakeup=Wakeup(),
            receivers=receivers,
            metrics=SchedulerMetrics(new_registry()),
        )
        began, began_cpu = time.monotonic(), time.process_time()
        running = asyncio.create_task(notifier.run(stop))
        while await _waiting(database):  # noqa: ASYNC110 what is recorded rings no bell
            await asyncio.sleep(_LOOK_SECONDS)
        seconds, cpu = time.monotonic() - began, time.process_time() - began_cpu
        stop.set()
        await running
    await database.close()
    print(f"{count:,} in {seconds:.1f} s: {count / seconds:.0f}/s, {cpu / count * 1e3:.2f} ms CPU")


async def _waiting(database: Database) -> int:
    async with database.read() as session:
        return (await totals.work(session, now=0.0)).webhooks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=10_000)
    options = parser.parse_args()
    with _url() as url, tempfile.TemporaryDirectory() as folder:
        asyncio.run(_run(Path(folder), url, options.count))


if __name__ == "__main__":
    main()
