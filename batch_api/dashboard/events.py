"""`/events`: tells open pages, by server-sent events, that there is something new to ask for."""

import asyncio
from collections.abc import AsyncIterator

from fastapi import Request
from starlette.responses import StreamingResponse

from batch_api.dashboard.pages import Viewing, pages
from batch_api.store.database import Database
from batch_api.waiting import wait

router = pages()

_LOOK_SECONDS = 0.5
_LOOKS_A_TICK = 10
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


@router.get("/events")
async def events(request: Request, _view: Viewing) -> StreamingResponse:
    """`changed`: something was written; `tick`: time has passed. No data: pages ask for theirs."""
    database: Database = request.app.state.database
    stop: asyncio.Event = request.app.state.stop
    return StreamingResponse(
        _events(database, stop), media_type="text/event-stream", headers=_HEADERS
    )


async def _events(database: Database, stop: asyncio.Event) -> AsyncIterator[str]:
    # Whoever comes back after a while has missed something.
    yield _event("changed")
    told = seen = database.commits
    looks = 0
    while not await wait(stop, _LOOK_SECONDS):
        # What had begun to be committed at the last look can be read by now.
        if seen != told:
            told = seen
            yield _event("changed")
        seen = database.commits
        looks += 1
        if looks % _LOOKS_A_TICK == 0:
            yield _event("tick")


def _event(name: str) -> str:
    return f"event: {name}\ndata:\n\n"
