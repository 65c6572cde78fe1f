"""A real database in a file, made by the migrations once and copied for each test."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from batch_api.store.blobs import Blobs
from batch_api.store.database import Database


@pytest.fixture
def folder(tmp_path: Path, migrated: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.copy(migrated, folder)
    return folder


@pytest.fixture
async def database(folder: Path) -> AsyncIterator[Database]:
    database = await Database.open(folder)
    yield database
    await database.close()


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs")
