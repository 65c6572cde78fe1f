"""A server that says what it was told to say, or breaks off: for what a real one seldom does."""

import json
import socket
import threading
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self

_SECONDS = 60

BATCH: dict[str, Any] = {
    "id": "batch_1",
    "object": "batch",
    "endpoint": "/v1/chat/completions",
    "input_file_id": "file-in",
    "completion_window": "24h",
    "status": "completed",
    "created_at": 1,
    "output_file_id": "file-out",
    "error_file_id": None,
    "request_counts": {"total": 2, "completed": 2, "failed": 0},
}
FILE: dict[str, Any] = {
    "id": "file-in",
    "object": "file",
    "bytes": 1,
    "created_at": 1,
    "filename": "in.jsonl",
    "purpose": "batch",
    "status": "processed",
}
ANSWER = b'{"custom_id": "a", "response": {"status_code": 200}}\n'


@dataclass(frozen=True, slots=True)
class Reply:
    body: bytes = b""
    status: int = 200
    type: str = "application/json"
    ending: Literal["whole", "cut", "lost", "hang"] = "whole"
    """`cut`: the end is missing; `lost`: not a byte comes; `hang`: nor does the end."""


def told(value: object, status: int = 200) -> Reply:
    return Reply(json.dumps(value).encode(), status)


def refusal(status: int, message: str = "As told.") -> Reply:
    return told({"error": {"message": message}}, status)


LOST = Reply(ending="lost")
HANG = Reply(ending="hang")


@dataclass(frozen=True, slots=True)
class Heard:
    what: str
    """Such as `GET /v1/batches/batch_1`, without its query."""
    headers: Mapping[str, str] = field(repr=False)
    """Their names in lower case."""


class Scripted(ThreadingHTTPServer):
    """A context; what it was not told to answer is a 404."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.heard: list[Heard] = []
        self.over = threading.Event()
        self._replies: dict[str, deque[Reply]] = defaultdict(deque)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.over.set()
        self.shutdown()
        self._thread.join(_SECONDS)
        self.server_close()

    def answers(self, what: str, *replies: Reply) -> None:
        """One after the other; the last one again and again."""
        self._replies[what] = deque(replies)

    def next_reply(self, what: str) -> Reply:
        replies = self._replies[what]
        if not replies:
            return refusal(404, "Not Found")
        return replies.popleft() if len(replies) > 1 else replies[0]

    def count(self, what: str) -> int:
        return sum(heard.what == what for heard in self.heard)


class _Handler(BaseHTTPRequestHandler):
    server: Scripted
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", "0")))
        what = f"{self.command} {self.path.partition('?')[0]}"
        self.server.heard.append(Heard(what, {k.lower(): v for k, v in self.headers.items()}))
        reply = self.server.next_reply(what)
        match reply.ending:
            case "hang":
                self.server.over.wait(_SECONDS)
            case "whole" | "cut":
                self._tell(reply)
        if reply.ending != "whole":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def do_POST(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def _tell(self, reply: Reply) -> None:
        missing = 1000 if reply.ending == "cut" else 0
        self.send_response(reply.status)
        self.send_header("content-type", reply.type)
        self.send_header("content-length", str(len(reply.body) + missing))
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, format: str, *args: object) -> None:
        pass
