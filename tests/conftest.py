"""What tests of several parts need."""

from pathlib import Path

import pytest

from batch_api.store.schema import upgrade


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database made by the migrations, to be copied for each test."""
    path = tmp_path_factory.mktemp("migrated") / "batch-api.db"
    upgrade(path)
    return path
