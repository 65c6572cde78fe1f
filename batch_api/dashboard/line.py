"""`/batches/{id}/lines/{number}`: a line's request and its answer, as they are."""

import asyncio
from typing import Annotated

from fastapi import Path, Response

from batch_api.api.batch_object import find_batch
from batch_api.api.lines import MAX_LINE
from batch_api.dashboard.batch import NAMES
from batch_api.dashboard.excerpts import MOST_BYTES, Excerpt, excerpt, line_of, part_of
from batch_api.dashboard.pages import Viewing, pages
from batch_api.errors import NotFound
from batch_api.lifecycle import RequestState
from batch_api.store import requests
from batch_api.store.blobs import Blobs
from batch_api.store.requests import Detail
from batch_api.store.tables import BatchRow

router = pages()


@router.get("/batches/{id}/lines/{number}")
async def one(id: str, number: Annotated[int, Path(ge=1, le=MAX_LINE)], view: Viewing) -> Response:
    async with view.parts.database.read() as session:
        batch = await find_batch(session, id)
        detail = await requests.detail(session, batch.number, number, most_bytes=MOST_BYTES + 1)
        if detail is None:
            raise NotFound(f"Batch {id} has no line {number}.")
        before = 0
        if detail.answer is None and batch.is_over:
            before = await requests.published_before(session, batch.number, detail.told)
    blobs = view.parts.blobs
    return view.page(
        "line.html",
        batch=batch,
        line=detail.told,
        asked=await asyncio.to_thread(_request, blobs, batch, detail),
        answer=await asyncio.to_thread(_answer, blobs, batch, detail, before),
        names=NAMES,
    )


def _request(blobs: Blobs, batch: BatchRow, detail: Detail) -> Excerpt | None:
    """None if the input is gone."""
    return part_of(blobs.path(batch.input_file_id), detail.body_offset, detail.body_length)


def _answer(blobs: Blobs, batch: BatchRow, detail: Detail, before: int) -> Excerpt | None:
    """None if there is none yet, or its file is gone; `before`: so many lines stand before it."""
    if detail.answer is not None:
        return excerpt(detail.answer)
    if not batch.is_over:
        return None
    is_completed = detail.told.state == RequestState.COMPLETED
    id = batch.output_file_id if is_completed else batch.error_file_id
    return line_of(blobs.path(id), before)
