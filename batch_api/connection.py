"""A client's connection: how large a head it may send, how long it may keep us waiting, and how
many there may be. uvicorn's own has no such limits.
"""

import json
import secrets
from asyncio import BaseTransport
from collections import OrderedDict
from typing import Any

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from batch_api.errors import APIError, BadRequest, Unavailable

MOST_HEAD_BYTES = 64 * 1024
MOST_HEADERS = 128
_MOST_QUEUED = 16  # requests that came before the answer to an earlier one
_LEAST_BYTES_A_SECOND = 500  # of a body

_Awaited = tuple[str, int, int]


class HeadTooLarge(APIError):
    status = 431
    type = "invalid_request_error"
    code = "headers_too_large"


class UrlTooLong(APIError):
    status = 414
    type = "invalid_request_error"
    code = "url_too_long"


class Refused(Exception):
    """What this client sent is not read any further."""


class Room:
    """For so many connections. A new one takes the place of the one that is idle for longest."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._idle: OrderedDict[Connection, None] = OrderedDict()

    def admit(self, new: "Connection") -> bool:
        """False: there is no room, and everybody else is at work."""
        is_full = len(new.connections) > self._most
        if is_full and not self._idle:
            return False
        if is_full:
            oldest, _ = self._idle.popitem(last=False)
            oldest.hang_up()
        self.offer(new)
        return True

    def offer(self, connection: "Connection") -> None:
        """It is idle now."""
        self._idle[connection] = None

    def withdraw(self, connection: "Connection") -> None:
        """It is at work, or gone."""
        self._idle.pop(connection, None)


class Connection(HttpToolsProtocol):
    def __init__(self, *given: Any, room: Room, patience_seconds: float, **named: Any) -> None:
        super().__init__(*given, **named)
        self._room = room
        self._patience_seconds = patience_seconds
        self._refusal: APIError | None = None
        self._running: RequestResponseCycle | None = None
        """The others that have been read wait for it to be answered."""
        self._unread_bytes = 0
        """That have come since the parser last made anything of them."""
        self._is_receiving = False
        """The body of a request."""
        self._is_deaf = False
        self._requests = 0
        self._body_bytes = 0
        self._drains = 0
        self._awaited: _Awaited | None = None
        self._awaited_since = 0.0

    def look(self, now: float) -> None:
        """Hang up on a client that has been awaited for too long; for every second or so."""
        awaited = self._what_is_awaited()
        if awaited is None or awaited != self._awaited:
            self._awaited, self._awaited_since = awaited, now
        elif now - self._awaited_since > self._patience_seconds:
            self.hang_up()

    def hang_up(self) -> None:
        self.transport.abort()

    def _what_is_awaited(self) -> _Awaited | None:
        """From the client, and how far it has come with it; None if it is for us to act."""
        unsent = self.transport.get_write_buffer_size()
        if unsent:
            return "taking", self._drains, unsent
        if self._is_receiving:
            is_held_up = self.flow.read_paused or self.cycle.waiting_for_100_continue
            enough = int(_LEAST_BYTES_A_SECOND * self._patience_seconds) or 1
            return None if is_held_up else ("sending", self._requests, self._body_bytes // enough)
        return None if self._is_answering else ("asking", self._requests, 0)

    @property
    def _is_answering(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        if not self._room.admit(self):
            self._refuse(Unavailable("The server has too many connections."))

    def connection_lost(self, exc: Exception | None) -> None:
        self._room.withdraw(self)
        super().connection_lost(exc)
        # uvicorn tells the request that was read last, which need not be the one that runs.
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        self._unread_bytes += len(data)
        super().data_received(data)
        if self._unread_bytes > MOST_HEAD_BYTES:
            self._refuse(_too_large_a_head())

    def on_headers_complete(self) -> None:
        self._unread_bytes = 0
        self._requests += 1
        self._check_head()
        self._is_receiving = True
        self._room.withdraw(self)
        super().on_headers_complete()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_receiving:  # what follows a body must not become a header
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._unread_bytes = 0
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unread_bytes = 0
        self._is_receiving = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._is_answering and not self.transport.is_closing():
            self._room.offer(self)

    def resume_writing(self) -> None:
        self._drains += 1
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Called for whatever the parser does not like, or we, who raised Refused in it."""
        self._refuse(self._refusal or BadRequest(msg))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _check_head(self) -> None:
        """Raises Refused."""
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if len(self.url) > MOST_HEAD_BYTES:
            self._refusal = UrlTooLong(f"The URL is longer than {MOST_HEAD_BYTES} bytes.")
        elif size > MOST_HEAD_BYTES or len(self.headers) > MOST_HEADERS:
            self._refusal = _too_large_a_head()
        elif len(self.pipeline) >= _MOST_QUEUED:
            self._refusal = BadRequest("Too many requests were sent before the first was answered.")
        if self._refusal is not None:
            raise Refused

    def _refuse(self, error: APIError) -> None:
        """In the middle of an answer nothing can be said."""
        if self._is_answering:
            self.hang_up()
        elif not self._is_deaf and not self.transport.is_closing():
            # Not closed yet: with bytes unread, that would reset the connection before the client
            # reads why. It hangs up first, or is awaited for too long.
            self._is_deaf = True
            self.transport.write(_rendered(error, self.server_state.default_headers))
            self.transport.write_eof()


def _too_large_a_head() -> APIError:
    return HeadTooLarge(
        f"The head of a request has at most {MOST_HEAD_BYTES} bytes and {MOST_HEADERS} headers."
    )


def _rendered(error: APIError, headers: list[tuple[bytes, bytes]]) -> bytes:
    """A whole answer, for where there is no request yet that an app could answer."""
    body = json.dumps(error.body).encode()
    told = {
        **error.headers,
        "content-type": "application/json",
        "content-length": str(len(body)),
        "x-request-id": f"req_{secrets.token_hex(16)}",
        "connection": "close",
    }
    headers = [*headers, *((name.encode(), value.encode()) for name, value in told.items())]
    lines = b"".join(b"%s: %s\r\n" % header for header in headers)
    return STATUS_LINE[error.status] + lines + b"\r\n" + body
