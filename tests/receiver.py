"""A receiver of webhooks on a socket of its own, which answers or misbehaves as it is told."""

import socket
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from types import TracebackType
from typing import Literal, Self

from openai import OpenAI
from openai.types.webhooks import UnwrapWebhookEvent

SECRET = "whsec_dGhlIHNlY3JldCBvZiB0aGUgdGVzdHMsIGFuZCBvZiBub2JvZHkgZWxzZQ=="

_PIECE = b"x" * 65536
_MOST_SENT_BYTES = 64 * 1024 * 1024
_SECONDS = 60
_ENDS = ("batch.completed", "batch.failed", "batch.expired", "batch.cancelled")
_ANY_AGE = 10**9


@dataclass(frozen=True, slots=True)
class Reply:
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    ending: Literal["whole", "hang", "closed", "nonsense", "huge", "endless head"] = "whole"
    """`closed`: without a word; `huge`: with a body of 64 MiB, if somebody reads it."""
    after_seconds: float = 0


OK = Reply()
HANG = Reply(ending="hang")


@dataclass(frozen=True, slots=True)
class Heard:
    path: str
    headers: Mapping[str, str]
    """Their names in lower case."""
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def sent_at(self) -> int:
        return int(self.headers["webhook-timestamp"])

    @property
    def signature(self) -> str:
        return self.headers["webhook-signature"]

    def unwrap(self, client: OpenAI, secret: str = SECRET) -> UnwrapWebhookEvent:
        """As a user does. Raises InvalidWebhookSignatureError, also for one that is too old."""
        return client.webhooks.unwrap(self.body, self.headers, secret=secret)

    def batch_id(self, client: OpenAI) -> str:
        event = self.unwrap(client)
        assert event.type in _ENDS
        id: str = event.data.id  # type: ignore[union-attr]
        return id

    def verify(self, client: OpenAI, secret: str = SECRET) -> None:
        """However old it is, for tests that turn the clock."""
        client.webhooks.verify_signature(self.body, self.headers, secret=secret, tolerance=_ANY_AGE)


class Receiver:
    """Answers 200 unless it is told otherwise. A context: leaving it lets go of all who wait."""

    def __init__(self, *replies: Reply, keeps_connections: bool = False) -> None:
        """`replies`: to the first messages, in order."""
        self.connections = 0
        self._keeps_connections = keeps_connections
        self.replies = deque(replies)
        self.usual = OK
        self.heard: list[Heard] = []
        self.open = 0
        self.most_open = 0
        self.sent_bytes = 0
        """Of bodies of answers, as far as somebody took them."""
        self._changed = threading.Condition()
        self._let_go = threading.Event()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    def url(self, path: str = "/hook") -> str:
        return f"http://{self.host}{path}"

    def let_go(self) -> None:
        """Of those who hang: their connections are closed."""
        self._let_go.set()

    def wait_until_heard(self, messages: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.heard) >= messages, _SECONDS)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.let_go()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _take(self, heard: Heard) -> Reply:
        with self._changed:
            self.heard.append(heard)
            self.open += 1
            self.most_open = max(self.most_open, self.open)
            self._changed.notify_all()
            return self.replies.popleft() if self.replies else self.usual

    def _leave(self) -> None:
        with self._changed:
            self.open -= 1

    def _handler(receiver) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1" if receiver._keeps_connections else "HTTP/1.0"
            timeout = _SECONDS

            def setup(self) -> None:
                super().setup()
                with receiver._changed:
                    receiver.connections += 1

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                reply = receiver._take(Heard(self.path, headers, body))
                try:
                    self._answer(reply)
                except OSError:
                    pass  # who does not read the whole answer has hung up
                finally:
                    receiver._leave()

            def do_GET(self) -> None:
                receiver._take(Heard(self.path, {}, b""))
                receiver._leave()
                self.send_error(405)

            def log_message(self, *_: object) -> None:
                pass

            def _answer(self, reply: Reply) -> None:
                time.sleep(reply.after_seconds)
                match reply.ending:
                    case "hang":
                        receiver._let_go.wait()
                    case "nonsense":
                        self.wfile.write(b"this is no HTTP\r\n\r\n")
                    case "endless head":
                        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
                        self._flood(b"x-more: " + _PIECE + b"\r\n")
                    case "whole" | "huge":
                        self.send_response(reply.status)
                        for name, value in reply.headers.items():
                            self.send_header(name, value)
                        if receiver._keeps_connections:
                            self.send_header("content-length", "0")
                        self.end_headers()
                        if reply.ending == "huge":
                            self._flood(_PIECE)

            def _flood(self, piece: bytes) -> None:
                while receiver.sent_bytes < _MOST_SENT_BYTES:
                    self.wfile.write(piece)
                    receiver.sent_bytes += len(piece)

        return Handler


class _Server(ThreadingMixIn, HTTPServer):
    request_queue_size = 128

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        # What a client does not read must not be counted as taken.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        return connection, address
