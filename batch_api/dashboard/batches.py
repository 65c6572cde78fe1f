"""`/`: the batches, newest first."""

from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import Query, Response

from batch_api.dashboard.pace import paces
from batch_api.dashboard.pages import Viewing, pages
from batch_api.dashboard.timeline import took_seconds
from batch_api.errors import BadRequest
from batch_api.lifecycle import FINAL_STATUSES, BatchStatus
from batch_api.store import batches
from batch_api.store.pages import UnknownCursor

router = pages()

_PAGE_ROWS = 25

Shown = Literal["all", "active", "ended", "completed", "failed", "expired", "cancelled"]
SHOWN: dict[Shown, Sequence[BatchStatus]] = {
    "all": [],
    "active": [status for status in BatchStatus if not status.is_final],
    "ended": sorted(FINAL_STATUSES),
    "completed": [BatchStatus.COMPLETED],
    "failed": [BatchStatus.FAILED],
    "expired": [BatchStatus.EXPIRED],
    "cancelled": [BatchStatus.CANCELLED],
}


@router.get("/")
async def listing(
    view: Viewing,
    status: Annotated[Shown, Query()] = "all",
    after: Annotated[str | None, Query(max_length=100)] = None,
) -> Response:
    now = view.parts.clock.now()
    try:
        async with view.parts.database.read() as session:
            page = await batches.page(
                session, after=after, limit=_PAGE_ROWS, statuses=SHOWN[status]
            )
            speeds = await paces(session, page.rows, now=now)
    except UnknownCursor as error:
        raise BadRequest("The batch that this list begins after is gone.") from error
    return view.page(
        "batches.html",
        batches=page.rows,
        paces=speeds,
        has_more=page.has_more,
        after=after,
        shown=status,
        choices=list(SHOWN),
        took_seconds=took_seconds,
        server=str(view.request.base_url).rstrip("/"),
    )
