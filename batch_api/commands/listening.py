"""A uvicorn server on a socket of ours, and the signals that end a process."""

import asyncio
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from batch_api.connection import Connection, Room
from batch_api.errors import Unusable
from batch_api.gate import USUAL, Gate, Visitors, is_loopback
from batch_api.settings import CLIENT_TIMEOUT_SECONDS

log = logging.getLogger(__name__)

_BACKLOG = 2048
_MOST_CONNECTIONS = 10_000
_MOST_FILES = 65_536
_OWN_FILES = 128
"""For the database, logs, workers and what else is open whoever is connected."""
_UNSENT_BYTES = 128 * 1024
_PROBES = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
_HEADERS = [
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    # Without its origin a browser's form would be taken for another site's.
    ("referrer-policy", "same-origin"),
]


class PortInUse(Unusable):
    pass


def bind(host: str, port: int) -> socket.socket:
    """A socket to listen on; port 0 takes a free one. Raises PortInUse."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends small answers at once only on sockets that name their protocol.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _set_up_connections(listener)
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


def _set_up_connections(listener: socket.socket) -> None:
    """On Linux, what is set here holds for each connection that comes in."""
    # A client that vanished without a word is noticed even while it waits for us.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {name: getattr(socket, name, None) for name in (*_PROBES, "TCP_NOTSENT_LOWAT")}
    # What a client doesn't take waits in our memory, not by the megabyte in the kernel's.
    values = _PROBES | {"TCP_NOTSENT_LOWAT": _UNSENT_BYTES}
    for name, option in options.items():
        if option is not None:
            listener.setsockopt(socket.IPPROTO_TCP, option, values[name])


def allow_many_files() -> int:
    """As many as the system lets this process open, within reason; how many that is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return _MOST_FILES
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


async def listen(
    app: ASGIApp,
    listener: socket.socket,
    stop: asyncio.Event,
    *,
    grace_seconds: float,
    visitors: Visitors = USUAL,
    client_timeout_seconds: float = CLIENT_TIMEOUT_SECONDS,
    most_connections: int | None = None,
    connection: type[Connection] = Connection,
) -> None:
    """Serve until `stop`, then until the requests under way have ended within the grace period."""
    visitors = visitors.at(is_local=is_loopback(listener.getsockname()[0]))
    server = _Server(
        uvicorn.Config(
            Gate(app, visitors),
            http=_connections(
                connection, most_connections or _most_connections(), client_timeout_seconds
            ),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # anybody may write them
            headers=_HEADERS,
            timeout_keep_alive=round(client_timeout_seconds) + 1,  # `Connection.look` is first
            timeout_graceful_shutdown=max(1, round(grace_seconds)),
        )
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve(sockets=[listener]))
        await stop.wait()
        server.should_exit = True


def _connections(kind: type[Connection], most: int, patience_seconds: float) -> Any:
    """What uvicorn takes for a class."""
    return partial(kind, room=Room(most), patience_seconds=patience_seconds)


def _most_connections() -> int:
    """Each may need a file, or a connection of its own to an upstream."""
    return min(_MOST_CONNECTIONS, (allow_many_files() - _OWN_FILES) // 2)


def stop_on_signals(*, second: int = 1, message: str = "stopping") -> asyncio.Event:
    """Set at the first SIGTERM or SIGINT; the next ends the process at once, with this status.

    `message`: for the log, where a server and its workers write.
    """
    stop = asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            os._exit(second)
        log.info(message, extra={"signal": number.name})
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    return stop


def _look(connection: Connection, now: float) -> None:
    """Whatever is wrong with one connection must not end the server."""
    try:
        connection.look(now)
    except Exception:
        log.exception("a connection could not be looked at")
        connection.hang_up()


class _Server(uvicorn.Server):
    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        if counter % 10 == 0:
            now = time.monotonic()
            for connection in list(self.server_state.connections):
                assert isinstance(connection, Connection)
                _look(connection, now)
        return await super().on_tick(counter)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are for the whole process, not for one server in it."""
        yield
