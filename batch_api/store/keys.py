"""Statements on `api_keys`. They are the operator's: no session of a tenant has a use for them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import exists, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from batch_api.store.tables import KeyRow


@dataclass(frozen=True, slots=True)
class Key:
    """As much of a key as it takes to know it again."""

    id: str
    sha256: bytes
    tenant: str
    expires_at: int | None


async def add(
    session: AsyncSession,
    *,
    id: str,
    sha256: bytes,
    name: str,
    tenant: str,
    created_at: int,
    expires_at: int | None,
) -> None:
    """Once: what is there already stays as it is."""
    if await session.scalar(select(exists().where(KeyRow.id == id))):
        return
    row = KeyRow(
        id=id,
        sha256=sha256,
        name=name,
        tenant=tenant,
        created_at=created_at,
        expires_at=expires_at,
    )
    session.add(row)


async def revoke(session: AsyncSession, id: str, *, now: float) -> bool:
    """False if it is unknown, or revoked already."""
    revoked = await session.scalar(
        update(KeyRow)
        .where(KeyRow.id == id, KeyRow.revoked_at.is_(None))
        .values(revoked_at=int(now))
        .returning(KeyRow.id)
    )
    return revoked is not None


async def mark_used(session: AsyncSession, ids: Iterable[str], *, now: float) -> None:
    await session.execute(
        update(KeyRow).where(KeyRow.id.in_(list(ids))).values(last_used_at=int(now))
    )


async def is_any(session: AsyncSession) -> bool:
    """Also one that is revoked or has expired: who had keys never lets everybody in again."""
    return bool(await session.scalar(select(exists().where(KeyRow.id.is_not(None)))))


async def valid(session: AsyncSession) -> Sequence[Key]:
    """Those that are not revoked; they may have expired."""
    columns = (getattr(KeyRow, name) for name in Key.__slots__)
    rows = await session.execute(select(*columns).where(KeyRow.revoked_at.is_(None)))
    return [Key(**row) for row in rows.mappings()]


async def every(session: AsyncSession) -> Sequence[KeyRow]:
    """Oldest first."""
    return (await session.scalars(select(KeyRow).order_by(KeyRow.number))).all()


async def get(session: AsyncSession, id: str) -> KeyRow | None:
    row: KeyRow | None = await session.scalar(select(KeyRow).where(KeyRow.id == id))
    return row
