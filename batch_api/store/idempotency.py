"""Statements on `idempotency_keys`: what a key has created, for as long as it is remembered."""

from sqlalchemy import delete, select
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
    await forget(session, now=now)
    row = await session.scalar(
        select(IdempotencyKeyRow).where(
            IdempotencyKeyRow.operation == operation, IdempotencyKeyRow.key == key
        )
    )
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


async def forget(session: AsyncSession, *, now: float) -> None:
    """The keys that are too old."""
    await session.execute(delete(IdempotencyKeyRow).where(IdempotencyKeyRow.expires_at <= int(now)))
