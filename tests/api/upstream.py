"""An upstream that does exactly what a test tells it to, byte by byte."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import msgspec

from tests.listening import answering

JSON = {"content-type": "application/json"}
EVENTS = {"content-type": "text/event-stream"}


@dataclass(frozen=True)
class Received:
    line: str
    headers: dict[str, str]
    body: bytes


async def nothing() -> AsyncIterator[bytes]:
    """A script that never begins to answer."""
    await asyncio.Event().wait()
    yield b""


@dataclass
class ScriptedUpstream:
    """Answers each POST with `status`, `headers` and what `script` yields, a chunk each."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: JSON)
    script: Callable[[], AsyncIterator[bytes]] = nothing
    breaks: bool = False
    """At the end of the script, instead of the last chunk."""
    models_status: int = 200
    models: list[str] = field(default_factory=lambda: ["org/name:v1", "plain"])
    loading: set[str] = field(default_factory=set)
    """Of the models."""
    listings: int = 0
    """How often it was asked for its models."""

    def __post_init__(self) -> None:
        self.received: list[Received] = []
        self.arrived = asyncio.Event()
        self.abandoned = asyncio.Event()
        """Its client closed the connection before the answer was whole."""
        self._standing = AsyncExitStack()

    async def start(self) -> str:
        return await self._standing.enter_async_context(answering(self._serve))

    async def stop(self) -> None:
        await self._standing.aclose()

    def answer(self, *pieces: bytes) -> None:
        async def script() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

        self.script = script

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request a connection."""
        received = await _read(reader)
        if received.line.startswith("GET /v1/models "):
            self.listings += 1
            models = [_model(id) | {"ready": id not in self.loading} for id in self.models]
            listing = {"object": "list", "data": models}
            writer.write(
                _head(self.models_status, JSON) + _chunk(msgspec.json.encode(listing)) + _chunk(b"")
            )
        else:
            self.received.append(received)
            await self._answer(reader, writer)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering = asyncio.create_task(self._write(writer))
        leaving = asyncio.create_task(reader.read(1))
        self.arrived.set()
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            self.abandoned.set()
        answering.cancel()
        leaving.cancel()
        await asyncio.wait((answering, leaving))

    async def _write(self, writer: asyncio.StreamWriter) -> None:
        head = _head(self.status, self.headers)
        async for piece in self.script():
            writer.write(head + _chunk(piece))
            head = b""
            await writer.drain()
        writer.write(b"" if self.breaks else head + _chunk(b""))


async def _read(reader: asyncio.StreamReader) -> Received:
    head = await reader.readuntil(b"\r\n\r\n")
    line, *lines = head.decode().rstrip().split("\r\n")
    headers = {name.lower(): value for name, _, value in (it.partition(": ") for it in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Received(line, headers, body)


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Scripted", "transfer-encoding: chunked", "connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def _chunk(piece: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(piece), piece)


def _model(id: str) -> dict[str, object]:
    return {"id": id, "object": "model", "created": 1_795_000_000, "owned_by": "tests"}
