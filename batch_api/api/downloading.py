"""A blob as an answer: the whole, or one range of it."""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import quote

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from batch_api.errors import APIError
from batch_api.store.tables import FileRow

_CHUNK_BYTES = 64 * 1024  # two of them wait for a client that takes nothing
_NAME_CHARACTERS = 150
_ONE_RANGE = re.compile(r"\s*bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.ASCII)


class RangeNotSatisfiable(APIError):
    status = 416
    type = "invalid_request_error"


@dataclass(frozen=True, slots=True)
class Span:
    """From `start` up to but not including `end`, of `size` bytes."""

    start: int
    end: int
    size: int
    is_partial: bool


def whole(size: int) -> Span:
    return Span(0, size, size, is_partial=False)


def headers(file: FileRow, span: Span) -> dict[str, str]:
    headers = {
        "content-type": "application/octet-stream",
        "content-length": str(span.end - span.start),
        "content-disposition": _attachment(file.filename[:_NAME_CHARACTERS]),
        "accept-ranges": "bytes",
        "etag": etag(file.sha256),
    }
    if span.is_partial:
        headers["content-range"] = f"bytes {span.start}-{span.end - 1}/{span.size}"
    return headers


def etag(sha256: str) -> str:
    return f'"{sha256}"'


def span_of(wanted: str | None, size: int) -> Span:
    """What a Range header asks for. Raises RangeNotSatisfiable.

    Several ranges, and what is no range of bytes, get the whole: RFC 9110 leaves that to us.
    """
    match = _ONE_RANGE.fullmatch(wanted or "")
    if match is None or match.groups() == ("", ""):
        return whole(size)
    first, last = match.groups()
    start = int(first) if first else max(size - int(last), 0)
    end = min(int(last) + 1, size) if first and last else size
    if first and last and int(last) < int(first):
        return whole(size)
    if start >= size:
        raise RangeNotSatisfiable(
            f"The file has {size} bytes.", headers={"content-range": f"bytes */{size}"}
        )
    return Span(start, end, size, is_partial=True)


class Download(StreamingResponse):
    """Closes the file whatever becomes of the client."""

    def __init__(self, file: BinaryIO, span: Span, headers: dict[str, str]) -> None:
        self._file = file
        super().__init__(
            _chunks(file, span),
            status_code=206 if span.is_partial else 200,
            headers=headers,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()


async def _chunks(file: BinaryIO, span: Span) -> AsyncIterator[bytes]:
    at = span.start
    while at < span.end:
        length = min(_CHUNK_BYTES, span.end - at)
        chunk = await asyncio.to_thread(os.pread, file.fileno(), length, at)
        assert chunk, "a published blob never shrinks"
        at += len(chunk)
        yield chunk


def _attachment(filename: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"
