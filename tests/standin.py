"""A stand-in upstream: answers at once or misbehaves as told, and writes down what it served.

Run as `python -m tests.standin --port N`, or in a test's own loop through `Standin.listening`.
"""

import argparse
import asyncio
import gzip
import os
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import msgspec
import uvloop

MODEL = "stand-in"

MODELS = msgspec.json.encode(
    {
        "object": "list",
        "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "tests"}],
    }
)

_HEAD_END = b"\r\n\r\n"
_PIECES = 10
_PIECE = b"x" * 65536
_ENDLESS_HEAD = (
    b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{"choices": ["'
)
_REASONS = {200: b"OK", 400: b"Bad Request", 404: b"Not Found", 503: b"Service Unavailable"}
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """How to misbehave. Put `str(fault)` at the beginning of the last message of a request."""

    status: int = 200
    retry_after: str | None = None
    body: str | None = None
    """Instead of the completion, or of the error that belongs to the status."""
    headers: dict[str, str] = {}
    """Beside the usual ones."""
    is_gzipped: bool = False
    ending: Literal[
        "whole", "slow", "half", "reset", "closed", "hang", "lull", "endless", "flood", "die"
    ] = "whole"
    """`slow`: in ten pieces over `delay_ms`; `half`: closed in the middle of the body; `reset`: the
    same with a TCP reset; `closed`: before its first byte; `hang`: no byte, ever; `lull`: the first
    event of a stream, and no other; `endless`, `flood`: a body, or events, that go on for as long
    as somebody reads them; `die`: this whole process does, as by a kill."""
    delay_ms: float = 0
    times: int | None = None
    """How often for the same text, before it is answered well; None: always."""
    is_everywhere: bool = False
    """Also where models are asked for; only for the fault of all requests."""

    @property
    def spoils(self) -> bool:
        """What comes of it is no reason to be content with."""
        is_verdict = self.status < 500 and self.status not in (408, 409, 425, 429)
        return not is_verdict or self.body is not None

    def __str__(self) -> str:
        told = msgspec.json.encode(self).decode().replace(">", r"\u003e")
        return f"<<{told}>>"


NO_FAULT = Fault()
HTML = Fault(body="<html><body><h1>502 Bad Gateway</h1></body></html>")
BROKEN_JSON = Fault(body='{"id": "chatcmpl-1", "object": "chat.comp')
HANG = Fault(ending="hang")
HALF = Fault(ending="half")
RESET = Fault(ending="reset")
LULL = Fault(ending="lull")
FLOOD = Fault(ending="flood")
FULL = Fault(status=503)
CLOSED = Fault(ending="closed")
DIE = Fault(ending="die")
ENDLESS = Fault(ending="endless")


_EVENTS_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
_EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % (b"la " * 100)


class _Message(msgspec.Struct):
    content: str


class _Request(msgspec.Struct):
    messages: list[_Message] = []
    prompt: str = ""
    input: str = ""

    @property
    def text(self) -> str:
        return self.messages[-1].content if self.messages else self.prompt or self.input


@dataclass(slots=True)
class Stats:
    """The answer of `GET /stats`."""

    received: int = 0
    answered: int = 0
    refused: int = 0
    """For want of a place."""
    models: int = 0
    """So often it was asked for its models."""
    open: int = 0
    most_open: int = 0
    connections: int = 0


def answer_to(text: str) -> str:
    """The content of the completion for a last message `text` (without its fault)."""
    return text[::-1]


def vector_of(text: str) -> list[float]:
    """The embedding of a text."""
    return [float(len(text)), *(float(byte) for byte in text.encode()[:7])]


def split_fault(content: str) -> tuple[Fault | None, str]:
    """The fault that a message begins with, and the text after it."""
    if not content.startswith("<<{"):
        return None, content
    told, _, text = content[2:].partition(">>")
    return msgspec.json.decode(told, type=Fault), text


class Standin:
    """What all connections share: the script, the counts and the journal."""

    def __init__(
        self,
        *,
        fault: Fault = NO_FAULT,
        jitter_ms: float = 0,
        seed: int = 0,
        journal: Path | None = None,
    ) -> None:
        self.fault = fault
        self.models_fault = NO_FAULT
        """Where models are asked for, unless that of all requests is everywhere."""
        self.places: int | None = None
        """Requests that are open at once; more are answered 503. None: any number."""
        self.stats = Stats()
        self.connections: set[Connection] = set()
        self._jitter_ms = jitter_ms
        self._random = random.Random(seed)
        self._misbehaved: Counter[str] = Counter()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._journal = os.open(journal, flags, 0o644) if journal else None

    @asynccontextmanager
    async def listening(self, port: int = 0) -> AsyncIterator[str]:
        """Its URL; nobody is connected to it afterwards."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(self), "127.0.0.1", port, backlog=1024)
        try:
            host, port = server.sockets[0].getsockname()
            yield f"http://{host}:{port}"
        finally:
            server.close()
            await asyncio.sleep(0)  # for those that are being accepted
            while self.connections:
                self.drop_connections()
                await asyncio.sleep(0)

    def receive(self, content: str) -> tuple[Fault, str]:
        """Count a request; say how to answer it, and its text."""
        told, text = split_fault(content)
        fault = self._due(told, text) if told else self.fault
        self.stats.received += 1
        if self.places is not None and self.stats.open >= self.places:
            self.stats.refused += 1
            fault = FULL
        self.stats.open += 1
        self.stats.most_open = max(self.stats.most_open, self.stats.open)
        self._write("received", text)
        return fault, text

    async def has_answered(self, more: int) -> None:
        """Wait until it has answered so many more requests."""
        enough = self.stats.answered + more
        while self.stats.answered < enough:  # noqa: ASYNC110 as the tests wait
            await asyncio.sleep(0.001)

    def drop_connections(self) -> None:
        """As a proxy does that is restarted."""
        for connection in list(self.connections):
            connection.drop()

    def leave(self, text: str, *, answered: bool, spoiled: bool = False) -> None:
        """Its answer is written, or its client is gone."""
        self.stats.open -= 1
        if answered:
            self.stats.answered += 1
            self._write("spoiled" if spoiled else "answered", text)

    def delay_seconds(self, fault: Fault) -> float:
        jitter_ms = self._random.uniform(0, self._jitter_ms) if self._jitter_ms else 0.0
        return (fault.delay_ms + jitter_ms) / 1000

    def _due(self, fault: Fault, text: str) -> Fault:
        self._misbehaved[text] += 1
        over = fault.times is not None and self._misbehaved[text] > fault.times
        return self.fault if over else fault

    def _write(self, event: str, text: str) -> None:
        if self._journal is not None:
            os.write(self._journal, f"{event} {text.splitlines()[0] if text else ''}\n".encode())


class Connection(asyncio.Protocol):
    """Parses just enough HTTP for clients that send a Content-Length."""

    def __init__(self, standin: Standin) -> None:
        self._standin = standin
        self._buffer = b""
        self._text: str | None = None
        """Of the request that is being answered."""
        self._fault = NO_FAULT
        self._is_full = False
        self._flooding = b""
        """What is written without an end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's only behaves like one
        self._standin.stats.connections += 1
        self._standin.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._standin.stats.connections -= 1
        self._standin.connections.discard(self)
        if self._text is not None:
            self._leave(answered=False)

    def drop(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._text is None and (request := self._take()) is not None:
            self._route(*request)

    def _take(self) -> tuple[bytes, bytes] | None:
        """The first line and the body of the next whole request."""
        end = self._buffer.find(_HEAD_END)
        if end < 0:
            return None
        head, start = self._buffer[:end], end + len(_HEAD_END)
        stop = start + _content_length(head)
        if len(self._buffer) < stop:
            return None
        body, self._buffer = self._buffer[start:stop], self._buffer[stop:]
        return head[: head.find(b" HTTP/")], body

    def _route(self, line: bytes, body: bytes) -> None:
        match line:
            case b"POST /v1/chat/completions" | b"POST /v1/completions" | b"POST /v1/embeddings":
                self._request(line.removeprefix(b"POST ").decode(), body)
            case b"GET /v1/models":
                self._standin.stats.models += 1
                fault = self._standin.fault
                self._answer(fault if fault.is_everywhere else self._standin.models_fault, MODELS)
            case b"GET /stats":
                self._send_json(self._standin.stats)
            case b"PUT /fault":
                self._standin.fault = msgspec.json.decode(body, type=Fault)
                self._send_json(self._standin.fault)
            case _:
                self._transport.write(_message(404, _error(404)))

    def _request(self, path: str, body: bytes) -> None:
        try:
            content = msgspec.json.decode(body, type=_Request).text
        except msgspec.DecodeError:
            self._transport.write(_message(400, _error(400)))
            return
        self._fault, self._text = self._standin.receive(content)
        self._answer(self._fault, _completion(path, self._text))

    def _answer(self, fault: Fault, good: bytes) -> None:
        answer = _misbehaving(fault, good)
        seconds = self._standin.delay_seconds(fault)
        if fault.ending == "whole" and not seconds:
            self._finish(answer)
        else:
            self._misbehave(fault, answer, seconds)

    def _misbehave(self, fault: Fault, answer: bytes, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        match fault.ending:
            case "whole":
                loop.call_later(seconds, self._finish, answer)
            case "slow":
                self._trickle(iter(_pieces(answer)), seconds / _PIECES)
            case "half" | "reset":
                loop.call_later(seconds, self._break_off, answer, fault.ending == "reset")
            case "closed":
                loop.call_later(seconds, self._transport.close)
            case "endless":
                self._flood(_ENDLESS_HEAD, _PIECE)
            case "die":
                os._exit(1)
            case "hang":
                pass
            case "lull":
                self._transport.write(_EVENTS_HEAD + _EVENT)
            case "flood":
                self._flood(_EVENTS_HEAD, _EVENT * 100)

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._go_on()

    def _flood(self, head: bytes, piece: bytes) -> None:
        self._transport.write(head)
        self._flooding = piece
        self._go_on()

    def _go_on(self) -> None:
        """As fast as it is read."""
        if self._flooding and not self._is_full and not self._transport.is_closing():
            self._transport.write(self._flooding)
            asyncio.get_running_loop().call_soon(self._go_on)

    def _trickle(self, pieces: Iterator[bytes], seconds: float) -> None:
        if self._transport.is_closing():
            return
        if piece := next(pieces, None):
            self._transport.write(piece)
            asyncio.get_running_loop().call_later(seconds, self._trickle, pieces, seconds)
        else:
            self._finish(b"")

    def _break_off(self, answer: bytes, reset: bool) -> None:
        self._transport.write(answer[: -len(answer) // 4])
        if reset:
            channel = self._transport.get_extra_info("socket")
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._transport.abort()
        else:
            self._transport.close()

    def _finish(self, answer: bytes) -> None:
        if self._transport.is_closing():  # its client went away meanwhile
            return
        self._transport.write(answer)
        if self._text is not None:
            self._leave(answered=True)
        if self._buffer:
            self.data_received(b"")

    def _leave(self, *, answered: bool) -> None:
        text, self._text = self._text, None
        assert text is not None
        self._standin.leave(text, answered=answered, spoiled=self._fault.spoils)

    def _send_json(self, content: object) -> None:
        self._transport.write(_message(200, msgspec.json.encode(content)))


def _content_length(head: bytes) -> int:
    _, found, after = head.lower().partition(b"\r\ncontent-length:")
    return int(after.partition(b"\r\n")[0]) if found else 0


def _misbehaving(fault: Fault, good: bytes) -> bytes:
    body = good if fault.status == 200 else _error(fault.status)
    if fault.body is not None:
        body = fault.body.encode()
    headers = dict(fault.headers)
    if fault.retry_after:
        headers["retry-after"] = fault.retry_after
    if fault.is_gzipped:
        body, headers["content-encoding"] = gzip.compress(body), "gzip"
    return _message(fault.status, body, headers)


def _completion(path: str, text: str) -> bytes:
    """Of each endpoint, with the same figures."""
    content = msgspec.json.encode(answer_to(text))
    tokens = text.count(" ") + 1
    usage = b'"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}' % (
        *(tokens, tokens, 2 * tokens),
    )
    match path:
        case "/v1/embeddings":
            return (
                b'{"object":"list","model":"%s","data":[{"object":"embedding","index":0,'
                b'"embedding":%s}],%s}'
                % (MODEL.encode(), msgspec.json.encode(vector_of(text)), usage)
            )
        case "/v1/completions":
            return (
                b'{"id":"cmpl-1","object":"text_completion","created":1795000000,"model":"%s",'
                b'"choices":[{"index":0,"text":%s,"logprobs":null,"finish_reason":"stop"}],%s}'
                % (MODEL.encode(), content, usage)
            )
    return (
        b'{"id":"chatcmpl-1","object":"chat.completion","created":1795000000,"model":"%s",'
        b'"choices":[{"index":0,"message":{"role":"assistant","content":%s,"refusal":null},'
        b'"logprobs":null,"finish_reason":"stop"}],%s}' % (MODEL.encode(), content, usage)
    )


def _error(status: int) -> bytes:
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": f"as told: {status}", "type": kind, "param": None, "code": None}
    return msgspec.json.encode({"error": error})


def _message(status: int, body: bytes, headers: Mapping[str, str] = {}) -> bytes:
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
    return b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\n%scontent-length: %d\r\n\r\n%s" % (
        status,
        _REASONS.get(status, b"As Told"),
        more,
        len(body),
        body,
    )


def _pieces(answer: bytes) -> list[bytes]:
    size = len(answer) // _PIECES + 1
    return [answer[start : start + size] for start in range(0, len(answer), size)]


async def _main() -> None:
    parser = argparse.ArgumentParser(description="A stand-in upstream for tests and benchmarks.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--delay-ms", type=float, default=0)
    parser.add_argument("--jitter-ms", type=float, default=0, help="on top, at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--journal", type=Path)
    options = parser.parse_args()
    standin = Standin(
        fault=Fault(delay_ms=options.delay_ms),
        jitter_ms=options.jitter_ms,
        seed=options.seed,
        journal=options.journal,
    )
    async with standin.listening(options.port):
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_main())
