"""Statements on `deliveries`: who is yet to hear of a batch's end, and who has heard."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import CTE, ColumnElement, bindparam, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

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
    next_at: float | None = None
    """Of the other one."""


@dataclass(frozen=True, slots=True)
class Due:
    """One that may be tried now; its fields are the row's."""

    number: int
    batch_id: str
    status: str
    ended_at: int
    url: str
    origin: str
    attempts: int


_COLUMNS = tuple(getattr(DeliveryRow, field.name) for field in fields(Due))
_other = aliased(DeliveryRow)


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
) -> list[Due]:
    """The first of each URL, then the second ones: so many of each URL and each origin at most.

    What waits for more than `within` seconds from now is due too, for the clock was set back.
    `but_not`: numbers.
    """
    order = DeliveryRow.next_at, DeliveryRow.number
    urls = _urls()
    first_ones = (
        select(_other.number)
        .where(_other.url == urls.c.url, *_is_due(now, within), _other.number.not_in(but_not))
        .order_by(_other.next_at, _other.number)
        .limit(of_url)
    )
    by_url = (
        select(DeliveryRow.number, _place(DeliveryRow.url, order).label("place_of_url"))
        .select_from(urls)
        .join(DeliveryRow, DeliveryRow.number.in_(first_ones.correlate(urls)))
        .subquery()
    )
    place = by_url.c.place_of_url
    by_origin = (
        select(
            DeliveryRow.number, place, _place(DeliveryRow.origin, (place, *order)).label("place")
        )
        .join(by_url, by_url.c.number == DeliveryRow.number)
        .subquery()
    )
    rows = await session.execute(
        select(*_COLUMNS)
        .join(by_origin, by_origin.c.number == DeliveryRow.number)
        .where(by_origin.c.place <= of_origin)
        .order_by(by_origin.c.place_of_url, *order)
    )
    return [Due(*row) for row in rows]


async def record(
    session: AsyncSession, ended: Collection[Attempt], *, now: float
) -> Collection[int]:
    """The numbers of those that were not over before."""
    numbers = [attempt.number for attempt in ended]
    is_pending = DeliveryRow.state == DeliveryState.PENDING
    pending = await session.scalars(
        select(DeliveryRow.number).where(DeliveryRow.number.in_(numbers), is_pending)
    )
    recorded = set(pending)
    values = [_values(attempt, now) for attempt in ended if attempt.number in recorded]
    if values:
        connection = await session.connection()
        await connection.execute(
            update(DeliveryRow)
            .where(DeliveryRow.number == bindparam("ended_number"), is_pending)
            .values(
                state=bindparam("new_state"),
                attempts=DeliveryRow.attempts + 1,
                failure=bindparam("reason"),
                next_at=func.coalesce(bindparam("again_at"), DeliveryRow.next_at),
                over_at=bindparam("final_at"),
            ),
            values,
        )
    return recorded


async def of_batch(session: AsyncSession, batch_id: str) -> Sequence[DeliveryRow]:
    rows = select(DeliveryRow).where(DeliveryRow.batch_id == batch_id).order_by(DeliveryRow.number)
    return (await session.scalars(rows)).all()


async def drop_old(session: AsyncSession, *, over_before: float, limit: int) -> int:
    """Some of those that were over by then; return how many."""
    old = select(DeliveryRow.number).where(DeliveryRow.over_at < int(over_before)).limit(limit)
    dropped = await session.scalars(
        delete(DeliveryRow).where(DeliveryRow.number.in_(old)).returning(DeliveryRow.number)
    )
    return len(dropped.all())


def _urls() -> CTE:
    """To which anything waits, and a NULL: by leaps in the index, however much waits to each."""
    is_pending = DeliveryRow.state == DeliveryState.PENDING
    first = select(func.min(DeliveryRow.url).label("url")).where(is_pending)
    urls = first.cte("urls", recursive=True)
    following = select(func.min(DeliveryRow.url)).where(is_pending, DeliveryRow.url > urls.c.url)
    return urls.union_all(
        select(following.correlate(urls).scalar_subquery()).where(urls.c.url.is_not(None))
    )


def _place(among: Any, order: Any) -> ColumnElement[int]:
    return func.row_number().over(partition_by=among, order_by=order)


def _is_due(now: float, within: float) -> tuple[ColumnElement[bool], ...]:
    return (
        _other.state == DeliveryState.PENDING,
        or_(_other.next_at <= now, _other.next_at > now + within),
    )


def _values(attempt: Attempt, now: float) -> dict[str, Any]:
    is_over = attempt.state != DeliveryState.PENDING
    return {
        "ended_number": attempt.number,
        "new_state": attempt.state,
        "reason": attempt.failure,
        "again_at": attempt.next_at,
        "final_at": int(now) if is_over else None,
    }
