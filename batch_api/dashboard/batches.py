"""`/`: the batches."""

from typing import Annotated

from fastapi import Query, Response

from batch_api.dashboard.pages import Viewing, pages
from batch_api.errors import BadRequest
from batch_api.store import batches
from batch_api.store.pages import UnknownCursor

router = pages()

_PAGE_ROWS = 25


@router.get("/")
async def listing(view: Viewing, after: Annotated[str | None, Query()] = None) -> Response:
    try:
        async with view.parts.database.read() as session:
            page = await batches.page(session, after=after, limit=_PAGE_ROWS)
    except UnknownCursor as error:
        raise BadRequest("The batch that this list begins after is gone.") from error
    return view.page("batches.html", batches=page.rows, has_more=page.has_more, after=after)
