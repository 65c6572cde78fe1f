"""A stand-in upstream: answers at once or misbehaves as told, and writes down what it served.

Run as `python -m tests.standin --port N`, or in a test's own loop through `Standin.listen`.
"""

import argparse
import asyncio
import os
import random
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import msgspec
import uvloop

MODEL = "stand-in"

_HEAD_END = b"\r\n\r\n"
_PIECES = 10
_REASONS = {200: b"OK", 400: b"Bad Request", 404: b"Not Found", 503: b"Service Unavailable"}
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """How to misbehave. Put `str(fault)` at the beginning of the last message of a request."""

    status: int = 200
    retry_after: str | None = None
    body: str | None = None
    """Instead of the completion, or of the error that belongs to the status."""
    ending: Literal["whole", "slow", "half", "reset", "drop", "hang"] = "whole"
    """`slow`: in ten pieces over `delay_ms`; `half`: closed in the middle of the body;
    `reset`: the same with a TCP reset; `drop`: closed before the first byte; `hang`: no byte,
    ever."""
    delay_ms: float = 0
    times: int | None = None
    """How often for the same text, before it is answered well; None: always."""

    def __str__(self) -> str:
        told = msgspec.json.encode(self).decode().replace(">", r"\u003e")
        return f"<<{told}>>"


NO_FAULT = Fault()
HTML = Fault(body="<html><body><h1>502 Bad Gateway</h1></body></html>")
BROKEN_JSON = Fault(body='{"id": "chatcmpl-1", "object": "chat.comp')
HANG = Fault(ending="hang")
HALF = Fault(ending="half")
RESET = Fault(ending="reset")
DROP = Fault(ending="drop")


class _Message(msgspec.Struct):
    content: str


class _Chat(msgspec.Struct):
    messages: list[_Message]


@dataclass(slots=True)
class Stats:
    """The answer of `GET /stats`."""

    received: int = 0
    answered: int = 0
    open: int = 0
    most_open: int = 0
    connections: int = 0


def answer_to(text: str) -> str:
    """The content of the completion for a last message `text` (without its fault)."""
    return text[::-1]


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
        self.stats = Stats()
        self._jitter_ms = jitter_ms
        self._random = random.Random(seed)
        self._misbehaved: Counter[str] = Counter()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._journal = os.open(journal, flags, 0o644) if journal else None

    async def listen(self, port: int = 0) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        return await loop.create_server(lambda: Connection(self), "127.0.0.1", port, backlog=1024)

    def receive(self, content: str) -> tuple[Fault, str]:
        """Count a request; say how to answer it, and its text."""
        told, text = split_fault(content)
        fault = self._due(told, text) if told else self.fault
        self.stats.received += 1
        self.stats.open += 1
        self.stats.most_open = max(self.stats.most_open, self.stats.open)
        self._write("received", text)
        return fault, text

    def leave(self, text: str, *, answered: bool) -> None:
        """Its answer is written, or its client is gone."""
        self.stats.open -= 1
        if answered:
            self.stats.answered += 1
            self._write("answered", text)

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

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's only behaves like one
        self._standin.stats.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._standin.stats.connections -= 1
        if self._text is not None:
            self._leave(answered=False)

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
            case b"POST /v1/chat/completions":
                self._chat(body)
            case b"GET /v1/models":
                models = [{"id": MODEL, "object": "model", "created": 0, "owned_by": "tests"}]
                self._send_json({"object": "list", "data": models})
            case b"GET /stats":
                self._send_json(self._standin.stats)
            case b"PUT /fault":
                self._standin.fault = msgspec.json.decode(body, type=Fault)
                self._send_json(self._standin.fault)
            case _:
                self._transport.write(_message(404, _error(404)))

    def _chat(self, body: bytes) -> None:
        try:
            content = msgspec.json.decode(body, type=_Chat).messages[-1].content
        except (msgspec.DecodeError, IndexError):
            self._transport.write(_message(400, _error(400)))
            return
        fault, self._text = self._standin.receive(content)
        answer = _answer(fault, self._text)
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
            case "drop":
                loop.call_later(seconds, self._transport.close)
            case "hang":
                pass

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
        if self._text is None:  # its client went away meanwhile
            return
        self._transport.write(answer)
        self._leave(answered=True)
        if self._buffer:
            self.data_received(b"")

    def _leave(self, *, answered: bool) -> None:
        text, self._text = self._text, None
        assert text is not None
        self._standin.leave(text, answered=answered)

    def _send_json(self, content: object) -> None:
        self._transport.write(_message(200, msgspec.json.encode(content)))


def _content_length(head: bytes) -> int:
    _, found, after = head.lower().partition(b"\r\ncontent-length:")
    return int(after.partition(b"\r\n")[0]) if found else 0


def _answer(fault: Fault, text: str) -> bytes:
    if fault.body is not None:
        body = fault.body.encode()
    else:
        body = _completion(text) if fault.status == 200 else _error(fault.status)
    return _message(fault.status, body, retry_after=fault.retry_after)


def _completion(text: str) -> bytes:
    content = msgspec.json.encode(answer_to(text))
    tokens = text.count(" ") + 1
    return (
        b'{"id":"chatcmpl-1","object":"chat.completion","created":1795000000,"model":"%s",'
        b'"choices":[{"index":0,"message":{"role":"assistant","content":%s,"refusal":null},'
        b'"logprobs":null,"finish_reason":"stop"}],'
        b'"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}}'
        % (MODEL.encode(), content, tokens, tokens, 2 * tokens)
    )


def _error(status: int) -> bytes:
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": f"as told: {status}", "type": kind, "param": None, "code": None}
    return msgspec.json.encode({"error": error})


def _message(status: int, body: bytes, *, retry_after: str | None = None) -> bytes:
    wait = f"retry-after: {retry_after}\r\n".encode() if retry_after else b""
    return b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\n%scontent-length: %d\r\n\r\n%s" % (
        status,
        _REASONS.get(status, b"As Told"),
        wait,
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
    server = await standin.listen(options.port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_main())
