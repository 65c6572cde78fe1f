"""What tests of several parts need."""

from pathlib import Path

import pytest

from batch_api.store.schema import upgrade
from tests.lived_in import LivedIn, live


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database made by the migrations, to be copied for each test."""
    path = tmp_path_factory.mktemp("migrated") / "batch-api.db"
    upgrade(path)
    return path


@pytest.fixture(scope="session")
def killed(tmp_path_factory: pytest.TempPathFactory) -> LivedIn:
    """A folder with batches of all kinds, as `kill -9` left it; to be copied for each test."""
    return live(tmp_path_factory.mktemp("killed"))
