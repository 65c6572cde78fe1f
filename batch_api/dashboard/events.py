"""`/events`: tells open pages, by server-sent events, that there is something new to ask for."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

from fastapi import APIRouter, Request
from starlette.responses import StreamingResponse

from batch_api.api.deps import Admitted, StillIn
from batch_api.store.database import Database
from batch_api.waiting import wait

router = APIRouter(include_in_schema=False)

# The scheduler commits several times a second, and each page asks for all it shows once it is told.
_LOOK_SECONDS = 1.0
_LOOKS_A_TICK = 5
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


@router.get("/events")
async def events(request: Request, tenant: Admitted, still_in: StillIn) -> StreamingResponse:
    """`changed`: something was written; `tick`: time has passed. No data: pages ask for theirs.

    Ends with the session. A browser asks again then, and is refused for good.
    """
    database: Database = request.app.state.database
    stop: asyncio.Event = request.app.state.stop
    commits = partial(database.commits, tenant)
    return StreamingResponse(
        _events(commits, still_in, stop), media_type="text/event-stream", headers=_HEADERS
    )


async def _events(
    commits: Callable[[], int], still_in: Callable[[], Awaitable[bool]], stop: asyncio.Event
) -> AsyncIterator[str]:
    told = commits()
    # Whoever comes back after a while has missed something.
    yield _event("changed")
    looks = 0
    while not await wait(stop, _LOOK_SECONDS) and await still_in():
        if (seen := commits()) != told:
            told = seen
            yield _event("changed")
        looks += 1
        if looks % _LOOKS_A_TICK == 0:
            yield _event("tick")


def _event(name: str) -> str:
    return f"event: {name}\ndata:\n\n"
