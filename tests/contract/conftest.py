"""API and scheduler in this process over a stand-in upstream; the clock is turned by hand."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from openai import AsyncOpenAI
from openai.types import Batch

from batch_api.api.app import create_app
from batch_api.api.keys import Keyring
from batch_api.api.sessions import Sessions
from batch_api.lifecycle import BatchStatus
from batch_api.metrics import new_registry
from batch_api.scheduler.metrics import SchedulerMetrics
from batch_api.scheduler.scheduler import Scheduler
from batch_api.settings import Settings
from batch_api.store import batches, requests
from batch_api.store.blobs import Blobs
from batch_api.store.database import Database
from batch_api.upstreams import Upstreams
from tests.api.conftest import sdk, serving
from tests.clock import TurnableClock
from tests.standin import MODEL, Standin

CHAT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
WAIT_SECONDS = 20
_LOOK_SECONDS = 0.005


def request(custom_id: str, text: str = "hi", **body: Any) -> dict[str, Any]:
    """One line of an input file; `text` may begin with a fault for the stand-in."""
    messages = [{"role": "user", "content": text}]
    return {
        "custom_id": custom_id,
        "method": "POST",
        "url": CHAT,
        "body": {"model": MODEL, "messages": messages, **body},
    }


def jsonl(lines: Sequence[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


@dataclass
class Live:
    client: AsyncOpenAI
    database: Database
    clock: TurnableClock
    scheduler: Scheduler
    standin: Standin

    async def start(self, content: bytes | Sequence[dict[str, Any]], **more: Any) -> Batch:
        data = content if isinstance(content, bytes) else jsonl(content)
        file = await self.client.files.create(file=("in.jsonl", data), purpose="batch")
        return await self.client.batches.create(
            input_file_id=file.id, endpoint=CHAT, completion_window="24h", **more
        )

    async def finish(self, batch: Batch, *, seconds_a_look: float = 1.0) -> Batch:
        """The batch at its end; time flies meanwhile, so that delays are short."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not BatchStatus(batch.status).is_final:
                await asyncio.sleep(_LOOK_SECONDS)
                self.clock.turn(seconds_a_look)
                self.scheduler.ring()
                batch = await self.client.batches.retrieve(batch.id)
        return batch

    async def run(self, content: bytes | Sequence[dict[str, Any]], **more: Any) -> Batch:
        return await self.finish(await self.start(content, **more))

    async def until_answered(self, batch: Batch, count: int) -> Batch:
        async with asyncio.timeout(WAIT_SECONDS):
            while not batch.request_counts or batch.request_counts.completed < count:
                await asyncio.sleep(_LOOK_SECONDS)
                batch = await self.client.batches.retrieve(batch.id)
        return batch

    async def until_trimmed(self, batch: Batch) -> None:
        """Until its files alone have its answers. The janitor makes a round each second."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not await self._is_trimmed(batch.id):  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_SECONDS)

    async def _is_trimmed(self, id: str) -> bool:
        async with self.database.read() as session:
            row = await batches.get(session, id)
        return row is not None and row.trimmed_at is not None

    async def until_dropped(self) -> None:
        """Until nothing is left of the only batch, which was deleted."""
        async with asyncio.timeout(WAIT_SECONDS), self.database.read() as session:
            while await requests.outcomes(session, 1, after_line=0, limit=1, most_bytes=1):
                await session.rollback()
                await asyncio.sleep(_LOOK_SECONDS)

    async def lines(self, file_id: str | None) -> list[dict[str, Any]]:
        """Of an output or error file; none if there is no such file."""
        if file_id is None:
            return []
        content = await self.client.files.content(file_id)
        return [json.loads(line) for line in content.text.splitlines()]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {
            "data_dir": tmp_path / "data",
            "max_in_flight": 4,
            # Of a clock that flies while a test waits.
            "lease_seconds": 1_000_000,
            "cancel_grace_seconds": 600,
            "shutdown_grace_seconds": 0,
        }
    )


@pytest.fixture
async def standin() -> Standin:
    return Standin()


@pytest.fixture
async def upstream_url(standin: Standin) -> AsyncIterator[str]:
    """Of what answers the requests."""
    async with standin.listening() as url:
        yield url


@pytest.fixture
async def live(
    settings: Settings, migrated: Path, standin: Standin, upstream_url: str
) -> AsyncIterator[Live]:
    settings.data_dir.mkdir()
    shutil.copy(migrated, settings.data_dir)
    database = await Database.open(settings.data_dir)
    upstreams = Upstreams([upstream_url], timeout_seconds=30)
    async with _running(database, settings, upstreams, standin) as live:
        yield live
    await upstreams.close()
    await database.close()


@asynccontextmanager
async def _running(
    database: Database, settings: Settings, upstreams: Upstreams, standin: Standin
) -> AsyncIterator[Live]:
    clock, stop = TurnableClock(), asyncio.Event()
    blobs = Blobs(settings.data_dir / "files")
    registry = new_registry()
    scheduler = Scheduler(
        database=database,
        blobs=blobs,
        upstreams=upstreams,
        settings=settings,
        clock=clock,
        metrics=SchedulerMetrics(registry),
    )
    keyring = await Keyring.open(database, settings, clock)
    app = create_app(
        database=database,
        blobs=blobs,
        upstreams=upstreams,
        settings=settings,
        clock=clock,
        ring=scheduler.ring,
        registry=registry,
        keyring=keyring,
        sessions=await Sessions.open(settings.data_dir, keyring, clock),
    )
    async with asyncio.TaskGroup() as group, serving(app) as url, sdk(url) as client:
        group.create_task(scheduler.run(stop))
        yield Live(client, database, clock, scheduler, standin)
        stop.set()
