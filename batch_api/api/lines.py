"""`/v1/batches/{id}/lines`, ours beyond OpenAI: what has become of each line."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
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
from batch_api.store.requests import Line
from batch_api.store.tables import BatchRow

router = APIRouter(prefix="/v1/batches", tags=["batches"])

_MAX_LINE = 2**53


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
        int, Query(ge=0, le=_MAX_LINE, description="The number of the last line already seen.")
    ] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> BatchLines:
    """In the order of the input; line numbers count from 1."""
    wanted = [*(state or []), *(states or [])]  # the SDK writes `state[]` where there are several
    async with parts.database.read() as session:
        batch = await find_batch(session, id)
    return await lines_of(batch, parts, states=wanted, after=after, limit=limit)


async def lines_of(
    batch: BatchRow, parts: AllParts, *, states: Collection[RequestState], after: int, limit: int
) -> BatchLines:
    """Of all states if none is named."""
    async with parts.database.read() as session:
        page = await requests.page(
            session, batch.number, states=states, after_line=after, limit=limit
        )
    errors = _errors(page.rows)
    if batch.has_error_file:
        unanswered = {row.custom_id for row in page.rows if row.state != RequestState.COMPLETED}
        path = parts.blobs.path(batch.error_file_id)
        errors = await asyncio.to_thread(_errors_in, path, unanswered)
    return BatchLines(data=[_line(row, errors) for row in page.rows], has_more=page.has_more)


def _errors(rows: Sequence[Line]) -> dict[str, LineError]:
    """By custom_id, while the database still has them."""
    return {row.custom_id: read_error_line(row.error).reason for row in rows if row.error}


def _errors_in(path: Path, custom_ids: Collection[str]) -> dict[str, LineError]:
    """By custom_id; none if the file was deleted. Blocks, and reads up to the last one."""
    found: dict[str, LineError] = {}
    if not custom_ids or not path.exists():
        return found
    with path.open("rb") as lines:
        for raw in lines:
            line = read_error_line(raw)
            if line.custom_id in custom_ids:
                found[line.custom_id] = line.reason
            if len(found) == len(custom_ids):
                break
    return found


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
