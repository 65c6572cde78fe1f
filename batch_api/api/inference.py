"""Single requests, passed on to an upstream byte for byte, ahead of the batches."""

import asyncio
import json
from collections.abc import Collection

from fastapi import APIRouter, Response
from starlette.types import Receive, Scope, Send

from batch_api.api.deps import Call, Parts, TheCall
from batch_api.api.documents import errors, takes_any
from batch_api.api.failures import check_is_for_clients, failure_of
from batch_api.disconnect import while_connected
from batch_api.forbidden import check_body
from batch_api.schemas.priority import PRIORITY_HEADER
from batch_api.unusable import UpstreamUnusable
from batch_api.upstream import OVERLOADED, Answer, retry_after_seconds
from batch_api.upstreams import Upstreams

router = APIRouter(tags=["inference"])

_KEPT_HEADERS = ("content-type", "cache-control", "retry-after-ms", "x-should-retry")
_RETRY_AFTER_SECONDS = 1
_LONG_BYTES = 64 * 1024  # to look through a longer body could hold up the event loop
_FORM_BEGINS = b"--"


_ENDPOINTS = {
    "/v1/chat/completions": ("createChatCompletion", ["model", "messages"]),
    "/v1/completions": ("createCompletion", ["model", "prompt"]),
    "/v1/embeddings": ("createEmbedding", ["model", "input"]),
    "/v1/responses": ("createResponse", ["model", "input"]),
    "/v1/moderations": ("createModeration", ["input"]),
    "/v1/images/generations": ("createImage", ["prompt"]),
    "/v1/images/edits": ("createImageEdit", ["prompt"]),
    "/v1/videos": ("createVideo", ["prompt"]),
}
"""What each is called, and what its body can't do without."""

_REPLY = {
    "description": "What the upstream says.",
    "content": {
        "application/json": {"schema": {"type": "object"}},
        "text/event-stream": {"schema": {"type": "string"}},
    },
}


async def pass_on(call: TheCall, parts: Parts) -> Response:
    """The upstream judges the body, and answers 404 to what it doesn't have."""
    await _check(call.body, parts.settings.allowed_media_hosts)
    return Relay(parts.upstreams, call)


async def _check(body: bytes, media_hosts: Collection[str]) -> None:
    """Raises BadRequest. Whatever it is called, what begins as no form may be read as JSON."""
    if body.startswith(_FORM_BEGINS):
        return
    if len(body) > _LONG_BYTES:
        await asyncio.to_thread(check_body, body, media_hosts)
    else:
        check_body(body, media_hosts)


for _path, (_name, _required) in _ENDPOINTS.items():
    router.post(
        _path,
        operation_id=_name,
        response_class=Response,
        openapi_extra=takes_any(**{name: {} for name in _required}),
        responses=errors(400, 404, 413, 415, 429, 502) | {200: _REPLY, "default": _REPLY},
    )(pass_on)


class Relay(Response):
    """The answer of the upstream: streams as they come, anything else when it is whole."""

    def __init__(self, upstreams: Upstreams, call: Call) -> None:
        super().__init__()
        self._upstreams = upstreams
        self._call = call
        self._begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._send = send
        await while_connected(receive, self._relay())

    async def _relay(self) -> None:
        headers = {
            PRIORITY_HEADER: "interactive",
            "x-request-id": self._call.request_id,
            "content-type": self._call.content_type,
        }
        try:
            async with self._upstreams.open(
                "POST", self._call.path, body=self._call.body, headers=headers
            ) as reply:
                await self._pass_on(reply)
        except UpstreamUnusable as error:
            failure = failure_of(error)
            if not self._begun:
                raise failure from error
            await self._more(b"\ndata: %s\n\n" % json.dumps(failure.body).encode())
        await self._send({"type": "http.response.body", "body": b""})

    async def _pass_on(self, reply: Answer) -> None:
        check_is_for_clients(reply.status)
        if reply.content_type == "text/event-stream":
            await self._stream(reply)
        else:
            body = await reply.read()
            await self._begin(reply, {"content-length": str(len(body))})
            await self._more(body)

    async def _stream(self, reply: Answer) -> None:
        """Whole lines only, so that an error event never lands in the middle of another."""
        async for lines in reply.lines():
            await self._begin(reply, {"x-accel-buffering": "no"})
            await self._more(lines)
        await self._begin(reply, {})

    async def _begin(self, reply: Answer, more: dict[str, str]) -> None:
        if self._begun:
            return
        self._begun = True
        kept = _kept_headers(reply) | more
        headers = [(name.encode(), value.encode()) for name, value in kept.items()]
        await self._send(
            {"type": "http.response.start", "status": reply.status, "headers": headers}
        )

    async def _more(self, body: bytes) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": True})


def _kept_headers(reply: Answer) -> dict[str, str]:
    """The SDK gives up if it is told to wait for more than two minutes."""
    kept = {name: reply.headers[name] for name in _KEPT_HEADERS if name in reply.headers}
    if reply.status in OVERLOADED:
        seconds = retry_after_seconds(reply.headers) or _RETRY_AFTER_SECONDS
        kept["retry-after"] = f"{seconds:g}"
    return kept
