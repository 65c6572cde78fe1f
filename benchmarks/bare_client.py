"""What a client that stores nothing gets from an upstream; prints its seconds: wall, CPU.

A process of its own, on the same event loop and HTTP library as the server.
"""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Literal

import aiohttp
import msgspec
import uvloop

PATH: Literal["/v1/chat/completions"] = "/v1/chat/completions"
_HEADERS = {"content-type": "application/json"}

Send = Callable[[bytes], Awaitable[None]]


class _Line(msgspec.Struct):
    body: msgspec.Raw


async def with_aiohttp(url: str, bodies: Iterator[bytes], connections: int) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def send(body: bytes) -> None:
            async with session.post(url + PATH, data=body, headers=_HEADERS) as response:
                await response.read()
                assert response.status == 200

        await _send_all(send, bodies, connections)


async def with_httpx2(url: str, bodies: Iterator[bytes], connections: int) -> None:
    import httpx2

    limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
    async with httpx2.AsyncClient(limits=limits, timeout=60) as client:

        async def send(body: bytes) -> None:
            response = await client.post(url + PATH, content=body, headers=_HEADERS)
            assert response.status_code == 200

        await _send_all(send, bodies, connections)


LIBRARIES = {"aiohttp": with_aiohttp, "httpx2": with_httpx2}


async def _send_all(send: Send, bodies: Iterator[bytes], connections: int) -> None:
    async def work() -> None:
        for body in bodies:
            await send(body)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(connections):
            tasks.create_task(work())


def _bodies(input_file: Path) -> list[bytes]:
    decoder = msgspec.json.Decoder(_Line)
    return [bytes(decoder.decode(line).body) for line in input_file.read_bytes().splitlines()]


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--input", type=Path, required=True, help="a batch's input file")
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--library", choices=LIBRARIES, default="aiohttp")
    options = parser.parse_args()
    bodies = _bodies(options.input)
    began, began_cpu = time.perf_counter(), time.process_time()
    uvloop.run(LIBRARIES[options.library](options.url, iter(bodies), options.connections))
    print(time.perf_counter() - began, time.process_time() - began_cpu)


if __name__ == "__main__":
    _main()
