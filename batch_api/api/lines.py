"""`/v1/batches/{id}/lines`, ours beyond OpenAI: what has become of each line."""

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query

from batch_api.api.batch_object import find_batch
from batch_api.api.deps import AllParts, Parts
from batch_api.api.documents import errors
from batch_api.lifecycle import RequestState
from batch_api.schemas.batches import BatchLine, BatchLines
from batch_api.schemas.error_lines import LineError, read_error_line
from batch_api.store import requests
from batch_api.store.pages import Page
from batch_api.store.requests import Line

router = APIRouter(prefix="/v1/batches", tags=["batches"])

MAX_LINE = 2**53
_MOST_BYTES = 8 * 1024 * 1024
"""Of errors in an answer, as upstreams told them."""


@router.get("/{id}/lines", operation_id="listLines", responses=errors(400, 404))
async def listing(
    id: str,
    parts: Parts,
    state: Annotated[
        list[RequestState] | None, Query(description="Only these; may be repeated.")
    ] = None,
    states: Annotated[
        list[RequestState] | None, Query(alias="state[]", include_in_schema=False)
    ] = None,
    after: Annotated[
        int, Query(ge=0, le=MAX_LINE, description="The number of the last line already seen.")
    ] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> BatchLines:
    """In the order of the input; line numbers count from 1."""
    wanted = [*(state or []), *(states or [])]  # the SDK writes `state[]` where there are several
    return await lines_of(id, parts, states=wanted, after=after, limit=limit)


async def lines_of(
    id: str, parts: AllParts, *, states: Collection[RequestState], after: int, limit: int
) -> BatchLines:
    """Of all states if none is named. Raises NotFound."""
    skipped = 0
    async with parts.database.read() as session:
        batch = await find_batch(session, id)
        page = await requests.page(
            session,
            batch.number,
            states=states,
            after_line=after,
            limit=limit,
            most_bytes=_MOST_BYTES,
        )
        if batch.has_error_file:
            skipped = await requests.count_unanswered(session, batch.number, up_to_line=after)
    errors = _errors(page.rows)
    if batch.has_error_file:
        path = parts.blobs.path(batch.error_file_id)
        page, errors = await asyncio.to_thread(_with_errors, page, path, skipped)
    return BatchLines(data=[_line(row, errors) for row in page.rows], has_more=page.has_more)


def _errors(rows: Sequence[Line]) -> dict[str, LineError]:
    """By custom_id, while the database still has them."""
    return {row.custom_id: read_error_line(row.error).reason for row in rows if row.error}


def _with_errors(
    page: Page[Line], path: Path, skipped: int
) -> tuple[Page[Line], dict[str, LineError]]:
    """The page as far as its errors have `_MOST_BYTES`, or one longer; and they, by custom_id.

    The file is in the order of the input, and all before the page is `skipped`, unread. Without
    the file there are no errors. Blocks.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return page, {}
    found: dict[str, LineError] = {}
    size = 0
    with file:
        lines = islice(file, skipped, None)
        for number, row in enumerate(page.rows):
            if row.state == RequestState.COMPLETED:
                continue
            raw = _line_of(row, lines)
            if raw is None:
                return page, found
            size += len(raw)
            if found and size > _MOST_BYTES:
                return Page(page.rows[:number], has_more=True), found
            found[row.custom_id] = read_error_line(raw).reason
    return page, found


def _line_of(row: Line, lines: Iterator[bytes]) -> bytes | None:
    """Between two lines of a page there may be some of states that nobody asked for."""
    return next((raw for raw in lines if read_error_line(raw).custom_id == row.custom_id), None)


def _line(row: Line, errors: Mapping[str, LineError]) -> BatchLine:
    return BatchLine(
        line=row.line,
        custom_id=row.custom_id,
        state=row.state,
        attempts=row.attempts,
        failures=row.failures,
        seconds=row.seconds,
        error=errors.get(row.custom_id),
    )
