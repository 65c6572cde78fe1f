"""How fast a batch goes, and how long it may still take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from batch_api.lifecycle import BatchStatus
from batch_api.store.tables import BatchRow


@dataclass(frozen=True, slots=True)
class Pace:
    lines_per_second: float
    tokens_per_second: float
    """Of what the model writes."""
    left_seconds: float | None
    """If it goes on like this; None if nothing ends."""


async def paces(
    session: AsyncSession, rows: Sequence[BatchRow], *, now: float
) -> Mapping[int, Pace]:
    """By batch number: of those that are in progress."""
    return {
        row.number: _pace(row, now=now)
        for row in rows
        if row.status == BatchStatus.IN_PROGRESS and row.in_progress_at is not None
    }


def _pace(row: BatchRow, *, now: float) -> Pace:
    assert row.in_progress_at is not None
    seconds = max(now - row.in_progress_at, 1.0)
    ended = row.completed + row.failed
    lines = ended / seconds
    left = ((row.total or 0) - ended) / lines if lines else None
    return Pace(lines, row.output_tokens / seconds, left)
