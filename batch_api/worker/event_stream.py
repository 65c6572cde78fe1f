"""An answer of server-sent events, which gives back what it holds however it ends."""

from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

import msgspec
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}  # the latter is for nginx

DONE = b"data: [DONE]\n\n"

_encode = msgspec.json.Encoder().encode


class EventStream(StreamingResponse):
    """Starlette breaks off the sending when the client goes away."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], *, held: ExitStack) -> None:
        super().__init__(events, headers=_HEADERS)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held:
            await super().__call__(scope, receive, send)


def event(content: Any, *, name: str = "") -> bytes:
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + _encode(content) + b"\n\n"
