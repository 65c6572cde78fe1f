"""A database made by the migrations once and copied for each test; an upstream on a socket."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from batch_api.settings import Settings
from batch_api.store.blobs import Blobs
from batch_api.store.database import Database
from batch_api.upstreams import Upstreams
from tests import server
from tests.clock import TurnableClock
from tests.scheduler.site import Site
from tests.standin import Standin


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {
            "data_dir": tmp_path / "data",
            "max_in_flight": 8,
            "request_timeout_seconds": 10,
            # Of a clock that flies while a test waits.
            "lease_seconds": 100_000,
            "cancel_grace_seconds": 600,
            "shutdown_grace_seconds": 10,
        }
    )


@pytest.fixture
def standin() -> Standin:
    return Standin()


@pytest.fixture
async def url(standin: Standin) -> AsyncIterator[str]:
    async with standin.listening() as url:
        yield url


@pytest.fixture
async def site(
    settings: Settings, migrated: Path, standin: Standin, url: str
) -> AsyncIterator[Site]:
    settings.data_dir.mkdir()
    shutil.copy(migrated, settings.data_dir)
    database = await Database.open(settings.data_dir)
    upstreams = Upstreams([url], timeout_seconds=settings.request_timeout_seconds)
    blobs = Blobs(settings.data_dir / "files")
    yield Site(database, blobs, TurnableClock(), settings, upstreams, standin, url)
    await upstreams.close()
    await database.close()


@pytest.fixture
def free_port() -> int:
    return server.free_port()
