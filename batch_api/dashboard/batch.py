"""`/batches/{id}`: one batch, and what has become of its lines."""

from typing import Annotated, Literal

from fastapi import Query, Response
from sqlalchemy.ext.asyncio import AsyncSession

from batch_api.api.batch_object import find_batch
from batch_api.api.deliveries import webhooks_of
from batch_api.api.lines import MAX_LINE, lines_of
from batch_api.dashboard.doings import doings
from batch_api.dashboard.pace import paces
from batch_api.dashboard.pages import Viewing, pages
from batch_api.dashboard.timeline import steps, took_seconds
from batch_api.lifecycle import BatchStatus, RequestState
from batch_api.store import files, requests
from batch_api.store.tables import BatchRow, FileRow

router = pages()

_PAGE_LINES = 50

Shown = Literal["all", "pending", "leased", "completed", "failed", "cancelled", "expired"]
NAMES: dict[Shown, str] = {
    "all": "All",
    "pending": "Waiting",
    "leased": "Taken up",
    "completed": "Completed",
    "failed": "Failed",
    "cancelled": "Cancelled",
    "expired": "Expired",
}
"""Of states, for people. What is taken up is at a worker, or one of the next to be sent there."""


@router.get("/batches/{id}")
async def one(
    id: str,
    view: Viewing,
    state: Annotated[Shown, Query()] = "all",
    after: Annotated[int, Query(ge=0, le=MAX_LINE)] = 0,
) -> Response:
    now = view.parts.clock.now()
    async with view.parts.database.read() as session:
        batch = await find_batch(session, id)
        speeds = await paces(session, [batch], now=now)
        downloads = await _downloads(session, batch, now=now)
        pace = speeds.get(batch.number)
        is_unseen = pace is None and not batch.is_over
        leased = await requests.count_leased(session, batch.number) if is_unseen else 0
        webhooks = await webhooks_of(session, batch) if batch.is_over else []
    states = [] if state == "all" else [RequestState(state)]
    lines = await lines_of(id, view.parts, states=states, after=after, limit=_PAGE_LINES)
    return view.page(
        "batch.html",
        batch=batch,
        pace=pace,
        doings=await doings(batch, view.parts, leased=leased) if is_unseen else None,
        downloads=downloads,
        steps=steps(batch, now=now),
        took_seconds=took_seconds(batch),
        can_cancel=BatchStatus(batch.status).can_become(BatchStatus.CANCELLING),
        unanswered=_unanswered(batch),
        lines=lines,
        webhooks=webhooks,
        state=state,
        names=NAMES,
        after=after,
    )


async def _downloads(
    session: AsyncSession, batch: BatchRow, *, now: float
) -> dict[str, FileRow | None]:
    """By what they are; None if a file is gone."""
    ids = {"Input": batch.input_file_id}
    if batch.has_output_file:
        ids["Output"] = batch.output_file_id
    if batch.has_error_file:
        ids["Errors"] = batch.error_file_id
    return {name: await files.get(session, id, now=now) for name, id in ids.items()}


def _unanswered(batch: BatchRow) -> int:
    """How many lines a retry would run."""
    if not batch.is_over or batch.status == BatchStatus.FAILED:
        return 0
    return (batch.total or 0) - batch.completed
