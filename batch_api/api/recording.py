"""A published blob gets its row, or goes."""

from collections.abc import Awaitable
from typing import TypeVar

from batch_api.errors import APIError
from batch_api.store.blobs import Blobs
from batch_api.store.tables import FileRow, PartRow
from batch_api.store.trouble import StoreError

_Row = TypeVar("_Row", FileRow, PartRow)


async def record(blobs: Blobs, id: str, adding: Awaitable[_Row]) -> _Row:
    """The row that `adding` gives: for the blob `id`, or an earlier call's, with its own blob."""
    try:
        row = await adding
    except (StoreError, APIError):
        await blobs.delete(id)
        raise
    if row.id != id:
        await blobs.delete(id)
    return row
