"""Looks up names for HTTP clients, in threads of its own.

A resolver that hangs keeps neither files nor the database waiting, nor the end of the process.
"""

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

_MOST_AT_ONCE = 64
"""aiohttp looks up a name once at a time, however many ask for it."""

LookUp = Callable[..., list[Any]]
"""As `socket.getaddrinfo`."""


class Lookups(AbstractResolver):
    def __init__(self, look_up: LookUp = socket.getaddrinfo) -> None:
        self._look_up = look_up
        self._places = asyncio.Semaphore(_MOST_AT_ONCE)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        async with self._places:
            found = await asyncio.wrap_future(self._begin(host, port, family))
        return [_result(host, *info) for info in found]

    async def close(self) -> None:
        """Whatever still hangs is left to itself."""

    def _begin(self, host: str, port: int, family: int) -> Future[list[Any]]:
        future = Future[list[Any]]()
        future.set_running_or_notify_cancel()

        def work() -> None:
            try:
                found = self._look_up(
                    host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG
                )
            except BaseException as error:  # noqa: BLE001 whoever waits is told
                future.set_exception(error)
            else:
                future.set_result(found)

        # A pool's threads are waited for when the process ends.
        Thread(target=work, name=f"look up {host}", daemon=True).start()
        return future


def _result(
    name: str, family: int, _type: int, protocol: int, _name: str, address: tuple[Any, ...]
) -> ResolveResult:
    has_scope = family == socket.AF_INET6 and address[3]
    return ResolveResult(
        hostname=name,
        host=f"{address[0]}%{address[3]}" if has_scope else address[0],
        port=address[1],
        family=family,
        proto=protocol,
        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    )
