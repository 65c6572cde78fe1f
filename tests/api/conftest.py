"""The real app on a real port, over a real database; only the clock and the upstream are ours."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import uvicorn
from fastapi import FastAPI
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from batch_api.api.app import create_app
from batch_api.api.keys import Keyring
from batch_api.api.sessions import Sessions
from batch_api.dashboard.app import add_dashboard
from batch_api.metrics import new_registry
from batch_api.settings import MIB, Settings
from batch_api.store.blobs import Blobs
from batch_api.store.database import Database
from batch_api.upstreams import Upstreams
from tests.api.upstream import ScriptedUpstream
from tests.clock import TurnableClock

START = 1_795_000_000
LINE = b'{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {}}\n'


@dataclass
class Site:
    """A running server, and what a test may look at behind its back."""

    url: str
    database: Database
    blobs_folder: Path
    clock: TurnableClock
    upstream: ScriptedUpstream
    client: AsyncOpenAI
    http: aiohttp.ClientSession
    rings: list[float]
    """When the scheduler was woken."""
    keyring: Keyring
    settings: Settings
    app: FastAPI

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def blobs_on_disk(self) -> list[str]:
        return sorted(path.name for path in self.blobs_folder.iterdir())

    async def upload(self, content: bytes = LINE) -> str:
        file = await self.client.files.create(file=("in.jsonl", content), purpose="batch")
        return file.id


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {
            "data_dir": tmp_path / "data",
            "max_file_bytes": 8 * MIB,
            "max_batch_file_bytes": 4 * MIB,
            "max_upload_bytes": 16 * MIB,
            "max_part_bytes": MIB,
            "max_body_bytes": MIB,
        }
    )


@pytest.fixture
async def site(settings: Settings, migrated: Path) -> AsyncIterator[Site]:
    settings.data_dir.mkdir()
    shutil.copy(migrated, settings.data_dir)
    database = await Database.open(settings.data_dir)
    upstream = ScriptedUpstream()
    url = await upstream.start()
    upstreams = Upstreams([url], timeout_seconds=10, max_answer_bytes=MIB)
    clock = TurnableClock()
    rings: list[float] = []
    keyring = await Keyring.open(database, settings, clock)
    app = create_app(
        database=database,
        blobs=Blobs(settings.data_dir / "blobs", min_free_bytes=settings.min_free_bytes),
        upstreams=upstreams,
        settings=settings,
        clock=clock,
        ring=lambda: rings.append(clock.now()),
        keyring=keyring,
        registry=new_registry(),
        sessions=await Sessions.open(settings.data_dir, keyring, clock),
    )
    add_dashboard(app, asyncio.Event())
    async with (
        serving(app) as url,
        sdk(url) as client,
        aiohttp.ClientSession(url) as http,
    ):
        folder = settings.data_dir / "blobs"
        yield Site(
            url, database, folder, clock, upstream, client, http, rings, keyring, settings, app
        )
    await upstreams.close()
    await upstream.stop()
    await database.close()


async def until(is_so: Callable[[], bool]) -> None:
    """For what nobody announces: files on disk."""
    async with asyncio.timeout(5):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def sdk(url: str, key: str = "none") -> AsyncOpenAI:
    """Without certificates: loading them takes longer than most tests."""
    http = DefaultAsyncHttpxClient(verify=False)
    return AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, http_client=http)


@asynccontextmanager
async def serving(app: object) -> AsyncIterator[str]:
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        port=0,
        lifespan="off",
        log_config=None,
        access_log=False,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    # Not `server.shutdown`, which sleeps first: all clients are gone by now.
    for listening in server.servers:
        listening.close()
    while server.server_state.connections:  # noqa: ASYNC110 uvicorn has no event for it
        await asyncio.sleep(0)
