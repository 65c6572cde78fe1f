"""A server in the test's own loop, with the connections and the gate that the commands have."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from starlette.types import ASGIApp

from batch_api.commands.listening import bind, listen


@asynccontextmanager
async def listening(app: ASGIApp, **options: Any) -> AsyncIterator[int]:
    """Its port; `options` are those of `listen`."""
    over = asyncio.Event()
    with bind("127.0.0.1", 0) as listener:
        async with asyncio.TaskGroup() as group:
            group.create_task(listen(app, listener, over, grace_seconds=1, **options))
            try:
                yield listener.getsockname()[1]
            finally:
                over.set()


@asynccontextmanager
async def connected(
    port: int, begun: bytes = b"", *, deaf: bool = False
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A client that has sent these bytes; a `deaf` one takes next to nothing of what it is told."""
    channel = socket.socket()
    channel.setblocking(False)
    if deaf:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await asyncio.get_running_loop().sock_connect(channel, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=channel)
    try:
        if deaf:
            writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(begun)
        yield reader, writer
    finally:
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def said_to(port: int, request: bytes) -> bytes:
    """All that the server says to these bytes, until it hangs up."""
    async with connected(port, request) as (reader, _), asyncio.timeout(30):
        return await reader.read()
