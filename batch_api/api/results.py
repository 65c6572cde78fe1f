"""`/v1/batches/{id}/results`, ours beyond OpenAI: the lines that have ended, while others run."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from typing import BinaryIO

from fastapi import APIRouter, Response
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import StreamingResponse

from batch_api.api.batch_object import find_batch
from batch_api.api.deps import AllParts, Parts
from batch_api.api.documents import errors
from batch_api.errors import NotFound
from batch_api.lifecycle import BatchStatus, RequestState
from batch_api.store import files, requests
from batch_api.store.requests import Outcome
from batch_api.store.tables import BatchRow

router = APIRouter(prefix="/v1/batches", tags=["batches"])

_PAGE_LINES = 200
_PAGE_BYTES = 4 * 1024 * 1024
_MEDIA_TYPE = "application/jsonl"
_LINES = {
    "description": "Lines of the output and error files, as far as they are known.",
    "content": {_MEDIA_TYPE: {"schema": {"type": "string"}}},
}


class BatchVanished(Exception):
    """Deleted while its lines were sent: the client must not take what it has for all of them."""


@router.get(
    "/{id}/results",
    operation_id="readResults",
    response_class=Response,
    responses=errors(404) | {200: _LINES},
)
async def results(id: str, parts: Parts) -> Response:
    """Every line that has ended so far, answered or failed, in the order of the input."""
    chunks = finished_lines(id, parts)
    # What is wrong is said before the answer begins.
    first = await anext(chunks, b"")
    return StreamingResponse(_with_first(first, chunks), media_type=_MEDIA_TYPE)


async def _with_first(first: bytes, more: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in more:
        yield chunk


async def finished_lines(id: str, parts: AllParts) -> AsyncIterator[bytes]:
    """In chunks: from the database, and from the files as soon as the batch is over."""
    after_line = 0
    while True:
        async with parts.database.read() as session:
            batch = await find_batch(session, id)
            if not batch.total or batch.status == BatchStatus.FAILED:
                return
            page = await _page(session, batch.number, after_line)
        if not page:
            return
        if batch.is_over:
            break
        after_line = page[-1].line
        if chunk := b"".join(outcome.answer or b"" for outcome in page):
            yield chunk
    async for chunk in _from_files(batch, parts, after_line):
        yield chunk


async def _from_files(batch: BatchRow, parts: AllParts, after_line: int) -> AsyncIterator[bytes]:
    with ExitStack() as stack:
        output = error = None
        if batch.has_output_file:
            output = await _open("output", batch.output_file_id, parts, stack)
        if batch.has_error_file:
            error = await _open("error", batch.error_file_id, parts, stack)
        at_line = lines = 0
        while lines < (batch.total or 0):
            async with parts.database.read() as session:
                page = await _page(session, batch.number, at_line)
            if not page:
                raise BatchVanished
            at_line, lines = page[-1].line, lines + len(page)
            chunks = _read(page, output, error, after_line)
            while chunk := await asyncio.to_thread(next, chunks, None):
                yield chunk


async def _page(session: AsyncSession, batch_number: int, after_line: int) -> list[Outcome]:
    return await requests.outcomes(
        session,
        batch_number,
        after_line=after_line,
        limit=_PAGE_LINES,
        most_bytes=_PAGE_BYTES,
    )


async def _open(name: str, id: str, parts: AllParts, stack: ExitStack) -> BinaryIO:
    """Raises NotFound: the other file's lines alone could be taken for all that there are."""
    gone = NotFound(f"Not all lines are left: the {name} file '{id}' was deleted, or has expired.")
    async with parts.database.read() as session:
        row = await files.get(session, id, now=parts.clock.now())
    if row is None:
        raise gone
    try:
        opened = await asyncio.to_thread(parts.blobs.path(id).open, "rb")
    except FileNotFoundError as error:
        raise gone from error
    return stack.enter_context(opened)


def _read(
    page: Sequence[Outcome], output: BinaryIO | None, error: BinaryIO | None, after_line: int
) -> Iterator[bytes]:
    """What comes after `after_line`: `_PAGE_BYTES` at once, or one longer line. Blocks."""
    chunk: list[bytes] = []
    size = 0
    for number, line in _lines(page, output, error):
        if number <= after_line:
            continue
        if chunk and size + len(line) > _PAGE_BYTES:
            yield b"".join(chunk)
            chunk, size = [], 0
        chunk.append(line)
        size += len(line)
    if chunk:
        yield b"".join(chunk)


def _lines(
    page: Sequence[Outcome], output: BinaryIO | None, error: BinaryIO | None
) -> Iterator[tuple[int, bytes]]:
    for outcome in page:
        file = output if outcome.state == RequestState.COMPLETED else error
        assert file is not None, "a batch that is over has a file for each of its lines"
        yield outcome.line, file.readline()
