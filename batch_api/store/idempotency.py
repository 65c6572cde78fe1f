"""Statements on `idempotency_keys`: what a key has created, for as long as it is remembered."""

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from batch_api.store.tables import IdempotencyKeyRow

REMEMBERED_SECONDS = 24 * 3600


class KeyReused(Exception):
    """The key was given with another request before."""


async def claim(
    session: AsyncSession,
    *,
    operation: str,
    key: str,
    fingerprint: str,
    object_id: str,
    now: float,
) -> str:
    """The id of what the key has created, or else `object_id`, to be created in this transaction.

    Raises KeyReused.
    """
    is_it = IdempotencyKeyRow.operation == operation, IdempotencyKeyRow.key == key
    await session.execute(delete(IdempotencyKeyRow).where(*is_it, _is_old(now)))
    row = await session.scalar(select(IdempotencyKeyRow).where(*is_it))
    if row is None:
        row = IdempotencyKeyRow(
            operation=operation,
            key=key,
            fingerprint=fingerprint,
            object_id=object_id,
            expires_at=int(now) + REMEMBERED_SECONDS,
        )
        session.add(row)
    if row.fingerprint != fingerprint:
        raise KeyReused
    return row.object_id


async def forget(session: AsyncSession, *, now: float, limit: int) -> int:
    """About `limit` keys that are too old; return how many."""
    oldest = select(IdempotencyKeyRow.expires_at).where(_is_old(now))
    moments = await session.scalars(oldest.order_by(IdempotencyKeyRow.expires_at).limit(limit))
    until = max(moments, default=0)
    forgotten = await session.scalars(
        delete(IdempotencyKeyRow)
        .where(IdempotencyKeyRow.expires_at <= until)
        .returning(IdempotencyKeyRow.key)
    )
    return len(forgotten.all())


def _is_old(now: float) -> ColumnElement[bool]:
    return IdempotencyKeyRow.expires_at <= int(now)
