"""A uvicorn server on a socket of ours, and the signals that end a process."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from batch_api.errors import Unusable

_KEEP_ALIVE_SECONDS = 75
_BACKLOG = 2048


class PortInUse(Unusable):
    pass


def bind(host: str, port: int) -> socket.socket:
    """A socket to listen on; port 0 takes a free one. Raises PortInUse."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends small answers at once only on sockets that name their protocol.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        # Two sockets may be bound to one port for as long as neither listens.
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise PortInUse(f"Can't listen on {host}:{port}: {error.strerror}.") from error
    return listener


@contextmanager
def held_port() -> Iterator[int]:
    """A free port of this machine for a child process to `bind`, once or again and again."""
    # Bound and not listening: on Linux the child may listen there (both set SO_REUSEADDR), nobody
    # is given the port by chance, and while the child is down connections are refused. A listening
    # socket that the child inherits would stay open here, and let them hang.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as holder:
        # Only now: with it from the start the choice could fall on a port that another one holds.
        holder.bind(("127.0.0.1", 0))
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port: int = holder.getsockname()[1]
        if sys.platform != "linux":
            holder.close()
        yield port


async def listen(
    app: FastAPI, listener: socket.socket, stop: asyncio.Event, *, grace_seconds: float
) -> None:
    """Serve until `stop`, then until the requests under way have ended within the grace period."""
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=max(1, round(grace_seconds)),
        )
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve(sockets=[listener]))
        await stop.wait()
        server.should_exit = True


def stop_on_signals(*, second: int = 1) -> asyncio.Event:
    """Set at the first SIGTERM or SIGINT; the next ends the process at once, with this status."""
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(second)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return stop


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are for the whole process, not for one server in it."""
        yield
