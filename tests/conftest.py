"""What tests of several parts need."""

from pathlib import Path

import pytest
from hypothesis import settings

from batch_api.store.schema import upgrade
from tests.lived_in import LivedIn, live

# How long an example takes says more of the machine than of the product.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

_LONGEST_FIRST = [
    "faults/test_kill_at_each_call.py",
    "faults/test_crash_windows.py",
    "commands/test_run.py",
    "test_cli.py",
    "worker/test_process.py",
    "test_end_to_end.py",
    "engine/test_engine.py",
    "scheduler/test_misbehaviour.py",
    "scheduler/test_dispatcher.py",
    "contract/test_lines.py",
    "client/test_commands.py",
    "test_dialects.py",
]
"""So that no process is left alone with one of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {Path(__file__).parent / name: rank for rank, name in enumerate(_LONGEST_FIRST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


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
