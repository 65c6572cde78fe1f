"""How fast a batch goes, and how long it may still take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from batch_api.lifecycle import BatchStatus
from batch_api.store import progress
from batch_api.store.progress import Rate
from batch_api.store.tables import BatchRow

_LATELY_SECONDS = 60
_FEW_LINES = 5


@dataclass(frozen=True, slots=True)
class Pace:
    lines_per_second: float
    tokens_per_second: float
    """Of what the model writes."""
    left_seconds: float | None
    """If it goes on like this; None after so few lines that it would be a guess."""


async def paces(
    session: AsyncSession, rows: Sequence[BatchRow], *, now: float
) -> Mapping[int, Pace]:
    """By batch number: of those in progress of which lines have ended in the last minute."""
    running = {row.number: row for row in rows if row.status == BatchStatus.IN_PROGRESS}
    rates = await progress.rates(session, running.keys(), since=now - _LATELY_SECONDS, now=now)
    return {number: _pace(running[number], rate) for number, rate in rates.items() if rate.lines}


def _pace(row: BatchRow, rate: Rate) -> Pace:
    ended = row.completed + row.failed
    left = (row.total or 0) - ended
    is_guess = ended - row.earlier_completed < _FEW_LINES
    left_seconds = None if is_guess else left / rate.lines
    return Pace(rate.lines, rate.output_tokens, left_seconds)
