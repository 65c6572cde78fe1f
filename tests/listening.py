"""Servers and clients of raw connections in a test's own loop, which leave none behind."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any

from starlette.types import ASGIApp

from batch_api.commands.listening import bind, listen


@asynccontextmanager
async def listening(app: ASGIApp, **options: Any) -> AsyncIterator[int]:
    """Its port; with the connections and the gate that the commands have, and their options."""
    over = asyncio.Event()
    with bind("127.0.0.1", 0) as listener:
        async with asyncio.TaskGroup() as group:
            group.create_task(listen(app, listener, over, grace_seconds=1, **options))
            try:
                yield listener.getsockname()[1]
            finally:
                over.set()


@asynccontextmanager
async def answering(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """The URL of one that does this to each connection, and hangs up."""
    writers: set[asyncio.StreamWriter] = set()

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        with suppress(ConnectionError):
            await answer(reader, writer)
            writer.close()
            await writer.wait_closed()
        writers.discard(writer)

    server = await asyncio.start_server(note, "127.0.0.1", 0)
    try:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}"
    finally:
        server.close()
        for writer in list(writers):
            await hang_up(writer)


@contextmanager
def full_listener() -> Iterator[int]:
    """The port of one whose queue of connections is full: nobody gets through to it."""
    with ExitStack() as held:
        listener = held.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        for _ in range(4):
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            with suppress(BlockingIOError):
                waiting.connect(("127.0.0.1", port))
        yield port


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
        await hang_up(writer)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """At once, whatever is still to be written."""
    writer.transport.abort()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def said_to(port: int, request: bytes) -> bytes:
    """All that the server says to these bytes, until it hangs up."""
    async with connected(port, request) as (reader, _), asyncio.timeout(30):
        return await reader.read()
