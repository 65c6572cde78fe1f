"""Sums over all tenants, for who watches the server; cheap however many lines there are.

Batches count their lines themselves, and of requests only those that are leased are looked at.
"""

from dataclasses import dataclass

from sqlalchemy import Select, case, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from batch_api.lifecycle import BatchStatus, RequestState
from batch_api.store.batches import is_active
from batch_api.store.tables import BatchRow, FileRow, RequestRow

_UNANSWERED = BatchRow.total - BatchRow.completed - BatchRow.failed
_IN_PROGRESS = (BatchRow.trimmed_at.is_(None), BatchRow.status == BatchStatus.IN_PROGRESS)


@dataclass(frozen=True, slots=True)
class Group:
    """The active batches of one status."""

    status: BatchStatus
    batches: int
    lines: int
    completed: int
    failed: int
    oldest_created_at: int
    next_expires_at: int | None


@dataclass(frozen=True, slots=True)
class Work:
    """What there is to do, at one moment."""

    groups: list[Group]
    leased: int
    """Lines of batches in progress that somebody works on."""
    needed_lines_per_second: float
    """From now on, so that no batch in progress misses its deadline, nearest deadlines first."""
    stored_bytes: int

    @property
    def pending(self) -> int:
        """Lines of batches in progress that nobody works on."""
        unanswered = sum(
            group.lines - group.completed - group.failed
            for group in self.groups
            if group.status is BatchStatus.IN_PROGRESS
        )
        return max(0, unanswered - self.leased)


async def work(session: AsyncSession, *, now: float) -> Work:
    return Work(
        groups=[
            Group(BatchStatus(status), *rest) for status, *rest in await session.execute(_groups())
        ],
        leased=await session.scalar(_leased()) or 0,
        needed_lines_per_second=await session.scalar(_needed(now)) or 0.0,
        stored_bytes=await session.scalar(select(func.sum(FileRow.bytes))) or 0,
    )


def _groups() -> Select[tuple[str, int, int, int, int, int, int | None]]:
    return (
        select(
            BatchRow.status,
            func.count(),
            func.sum(func.coalesce(BatchRow.total, 0)),
            func.sum(BatchRow.completed),
            func.sum(BatchRow.failed),
            func.min(BatchRow.created_at),
            func.min(BatchRow.expires_at),
        )
        .where(*is_active())
        .group_by(BatchRow.status)
    )


def _leased() -> Select[tuple[int]]:
    return (
        select(func.count())
        .select_from(RequestRow)
        .where(
            RequestRow.state == RequestState.LEASED,
            RequestRow.batch_number.in_(select(BatchRow.number).where(*_IN_PROGRESS)),
        )
    )


def _needed(now: float) -> Select[tuple[float]]:
    """The most that any deadline asks for: all lines due by then, over the time until then."""
    lines = func.sum(func.sum(_UNANSWERED)).over(order_by=BatchRow.expires_at)
    due = (
        select(BatchRow.expires_at, lines.label("lines"))
        .where(*_IN_PROGRESS, BatchRow.expires_at.is_not(None))
        .group_by(BatchRow.expires_at)
        .subquery()
    )
    left = due.c.expires_at - now
    return select(func.max(1.0 * due.c.lines / case((left > 1, left), else_=1.0)))
