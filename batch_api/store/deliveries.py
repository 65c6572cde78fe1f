"""Statements on `deliveries`: who is yet to hear of a batch's end, and who has heard."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from batch_api.lifecycle import DeliveryState
from batch_api.origins import origin
from batch_api.store.tables import BatchRow, DeliveryRow


@dataclass(frozen=True, slots=True)
class Attempt:
    """How one has ended."""

    number: int
    """Of the delivery."""
    state: DeliveryState
    """`pending`: there will be another one."""
    failure: str | None = None
    next_at: float = 0.0
    """Of the other one."""


async def add(
    session: AsyncSession, batch_number: int, *, ended_at: int, webhook_urls: Collection[str]
) -> None:
    """For a batch that has just ended: one for its own receiver and for each of `webhook_urls`."""
    columns = BatchRow.id, BatchRow.tenant, BatchRow.status, BatchRow.webhook_url
    found = await session.execute(select(*columns).where(BatchRow.number == batch_number))
    id, tenant, status, own = found.one()
    urls = dict.fromkeys((*webhook_urls, own))
    session.add_all(
        DeliveryRow(
            tenant=tenant,
            batch_id=id,
            status=status,
            ended_at=ended_at,
            url=url,
            origin=origin(url),
            next_at=ended_at,
        )
        for url in urls
        if url is not None
    )


async def due(
    session: AsyncSession,
    *,
    now: float,
    within: float,
    of_url: int,
    of_origin: int,
    but_not: Collection[int] = (),
) -> Sequence[DeliveryRow]:
    """Those that have waited for longest, so many of each URL and of each origin at most.

    What waits for more than `within` seconds from now is due too, for the clock was set back.
    `but_not`: numbers.
    """
    order = DeliveryRow.next_at, DeliveryRow.number
    by_url = (
        select(DeliveryRow.number, _place(DeliveryRow.url, order))
        .where(*_is_due(now, within), DeliveryRow.number.not_in(but_not))
        .subquery()
    )
    by_origin = (
        select(DeliveryRow.number, _place(DeliveryRow.origin, order))
        .join(by_url, by_url.c.number == DeliveryRow.number)
        .where(by_url.c.place <= of_url)
        .subquery()
    )
    rows = (
        select(DeliveryRow)
        .join(by_origin, by_origin.c.number == DeliveryRow.number)
        .where(by_origin.c.place <= of_origin)
        .order_by(*order)
    )
    return (await session.scalars(rows)).all()


async def record(session: AsyncSession, ended: Attempt, *, now: float) -> bool:
    """Whether it was not over before."""
    is_over = ended.state != DeliveryState.PENDING
    recorded = await session.scalar(
        update(DeliveryRow)
        .where(DeliveryRow.number == ended.number, DeliveryRow.state == DeliveryState.PENDING)
        .values(
            state=ended.state,
            attempts=DeliveryRow.attempts + 1,
            failure=ended.failure,
            next_at=DeliveryRow.next_at if is_over else ended.next_at,
            over_at=int(now) if is_over else None,
        )
        .returning(DeliveryRow.number)
    )
    return recorded is not None


async def drop_old(session: AsyncSession, *, over_before: float, limit: int) -> int:
    """Some of those that were over by then; return how many."""
    old = select(DeliveryRow.number).where(DeliveryRow.over_at < int(over_before)).limit(limit)
    dropped = await session.scalars(
        delete(DeliveryRow).where(DeliveryRow.number.in_(old)).returning(DeliveryRow.number)
    )
    return len(dropped.all())


def _place(among: Any, order: Any) -> ColumnElement[int]:
    return func.row_number().over(partition_by=among, order_by=order).label("place")


def _is_due(now: float, within: float) -> tuple[ColumnElement[bool], ...]:
    return (
        DeliveryRow.state == DeliveryState.PENDING,
        or_(DeliveryRow.next_at <= now, DeliveryRow.next_at > now + within),
    )
