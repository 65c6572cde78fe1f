"""How fast a batch goes, and how long it may still take."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from batch_api.dashboard.pace import Pace, paces
from batch_api.store import progress
from batch_api.store.batches import Tally, Usage
from batch_api.store.database import Database
from tests.store import rows

NOON = 43_200


@pytest.fixture
async def database(tmp_path: Path, migrated: Path) -> AsyncIterator[Database]:
    shutil.copy(migrated, tmp_path)
    database = await Database.open(tmp_path)
    yield database
    await database.close()


@pytest.mark.parametrize(
    ("earlier", "ended", "left_seconds"),
    [(0, 4, None), (0, 5, 190.0), (0, 100, 0.0), (40, 4, None), (40, 5, 110.0)],
)
async def test_how_long_it_takes_is_not_guessed_from_a_few_lines(
    database: Database, earlier: int, ended: int, left_seconds: float | None
) -> None:
    """`earlier`: lines that were answered by the batch that this one retries."""
    number = await rows.add_batch(database, lines=100)
    async with database.write.begin() as session:
        done = Tally(ended, 0, Usage(output_tokens=30))
        await progress.record(session, {number: done}, now=NOON + 5)
    batch = await rows.batch(database, number)
    batch.completed, batch.earlier_completed = earlier + ended, earlier

    async with database.read() as session:
        pace = (await paces(session, [batch], now=NOON + 10))[number]

    assert pace == Pace(ended / 10, 3.0, left_seconds)
