"""The words for how much of the disk is left."""

from pathlib import Path

import pytest

from batch_api.store.database import DATABASE_NAME, bytes_on_disk
from batch_api.store.room import Room


@pytest.mark.parametrize(("marks", "state"), [(0.0, "ok"), (1.5, "low"), (4.0, "short")])
def test_room_gets_low_and_then_short(tmp_path: Path, marks: float, state: str) -> None:
    free = Room(tmp_path).free_bytes()

    assert Room(tmp_path, min_free_bytes=int(marks * free)).state() == state


def test_a_database_without_a_log_has_a_size_all_the_same(tmp_path: Path) -> None:
    assert bytes_on_disk(tmp_path) == (0, 0)
    (tmp_path / DATABASE_NAME).write_bytes(b"12345")

    assert bytes_on_disk(tmp_path) == (5, 0)
