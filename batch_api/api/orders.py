"""Carries out what commands have asked for: a server does, or a command where there is none."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from batch_api.store.database import Database
from batch_api.store.orders import Order, Orders, carry_out


@asynccontextmanager
async def carried_out(orders: Orders, database: Database) -> AsyncIterator[Sequence[Order]]:
    """What waited and is committed now: it is told so, by its removal, when the block has ended."""
    waiting = await asyncio.to_thread(orders.waiting)
    if not waiting:
        yield ()
        return
    async with database.write.begin() as session:
        carried = await carry_out(session, waiting)
    yield carried.done
    await asyncio.to_thread(orders.remove, waiting, refused=carried.refused)
