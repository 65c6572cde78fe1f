"""A wait that an event can end early: every sleep of ours can be interrupted."""

import asyncio
from contextlib import suppress


async def wait(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event came within that time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()
