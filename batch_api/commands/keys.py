"""`batch-api keys`: what an operator does with keys, whether a server runs on the folder or not."""

import asyncio
import json
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from batch_api.api.keys import hashed
from batch_api.api.orders import carried_out
from batch_api.errors import Unusable
from batch_api.schemas.ids import key_id
from batch_api.store import keys
from batch_api.store.database import (
    Database,
    DataFolderInUse,
    DataFolderUnusable,
    glance,
    has_database,
)
from batch_api.store.orders import NewKey, Order, Orders, Revocation
from batch_api.store.tables import KeyRow

_SECRET_BYTES = 32
_POLL_SECONDS = 0.05
_PATIENCE_SECONDS = 30
_DAY_FORMAT = "%Y-%m-%d %H:%M"
_HEADINGS = ("ID", "NAME", "TENANT", "STATUS", "CREATED", "EXPIRES", "LAST USED")


class KeyUnknown(Unusable):
    pass


class OrderNotTaken(Unusable):
    pass


async def create_key(folder: Path, *, name: str, tenant: str, lifetime_seconds: int | None) -> None:
    """Print the secret, which nobody can see again. Raises Unusable."""
    secret = f"sk-{secrets.token_urlsafe(_SECRET_BYTES)}"
    now = int(time.time())
    expires_at = None if lifetime_seconds is None else now + lifetime_seconds
    new = NewKey(key_id(), hashed(secret.encode()), name, tenant, now, expires_at)
    await _ask(folder, new)
    await _find(folder, new.id)
    print(secret)
    print(
        f"{new.id}, for the tenant {tenant!r} of {folder}; it is shown only now.", file=sys.stderr
    )


async def revoke_key(folder: Path, id: str) -> None:
    """No longer let in when this returns. Raises Unusable."""
    await _find(folder, id)
    await _ask(folder, Revocation(id, int(time.time())))
    row = await _find(folder, id)
    assert row.revoked_at is not None
    print(f"{id} ({row.name!r}) is revoked.", file=sys.stderr)


async def list_keys(folder: Path, *, as_json: bool) -> None:
    """Print them, without any secret. Raises Unusable."""
    async with glance(folder) as session:
        rows = await keys.every(session)
    told = [_told(row, time.time()) for row in rows]
    if as_json:
        print(json.dumps(told, indent=2))
    else:
        print("\n".join(_table(told)))


async def has_keys(folder: Path) -> bool:
    """Also before a server ever ran there."""
    if not has_database(folder):
        return False
    async with glance(folder) as session:
        return await keys.is_any(session)


async def _find(folder: Path, id: str) -> KeyRow:
    async with glance(folder) as session:
        row = await keys.get(session, id)
    if row is None:
        raise KeyUnknown(f"There is no key {id} in {folder}.")
    return row


async def _ask(folder: Path, order: Order) -> None:
    """Of the server on that folder; or where there is none, do it instead. Raises Unusable."""
    try:
        orders = Orders(folder)
        left = orders.leave(order)
    except OSError as error:
        raise DataFolderUnusable(f"{folder} can't be written: {error.strerror}.") from error
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while left.exists() and not await _stand_in(folder, orders):
        if time.monotonic() > deadline:
            raise OrderNotTaken(
                f"The server on {folder} has not done it yet; it will, once it can write again."
            )
        await asyncio.sleep(_POLL_SECONDS)


async def _stand_in(folder: Path, orders: Orders) -> bool:
    """Whether nobody runs on the folder, so that the orders could be carried out here."""
    try:
        database = await Database.open(folder)
    except DataFolderInUse:
        return False
    try:
        async with carried_out(orders, database):
            pass
    finally:
        await database.close()
    return True


def _told(row: KeyRow, now: float) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "tenant": row.tenant,
        "status": _status(row, now),
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "revoked_at": row.revoked_at,
        "last_used_at": row.last_used_at,
    }


def _status(row: KeyRow, now: float) -> str:
    if row.revoked_at is not None:
        return "revoked"
    return "expired" if row.expires_at is not None and row.expires_at <= now else "valid"


def _table(told: Sequence[dict[str, Any]]) -> Iterator[str]:
    cells = [_HEADINGS] + [
        (
            *(key[name] for name in ("id", "name", "tenant", "status")),
            *(_moment(key[name]) for name in ("created_at", "expires_at", "last_used_at")),
        )
        for key in told
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _moment(at: int | None) -> str:
    """UTC."""
    return "never" if at is None else datetime.fromtimestamp(at, UTC).strftime(_DAY_FORMAT)
