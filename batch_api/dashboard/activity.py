"""`/activity`: what was done when, from the database's history; charts ask for their data apart."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

from fastapi import Depends, Query, Request, Response
from fastapi.responses import JSONResponse

from batch_api.api.batch_object import find_batch
from batch_api.dashboard.pages import View, Viewing, pages
from batch_api.dashboard.series import Series, series, step_for, summary
from batch_api.remembered import Remembered
from batch_api.store import progress
from batch_api.store.tables import BatchRow

router = pages()

_HEADERS = {"cache-control": "no-store"}
_MOST_KEPT_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Range:
    choice: str
    words: str
    """After “the last”."""
    seconds: int

    @property
    def step(self) -> int:
        return step_for(self.seconds)

    @property
    def kept_seconds(self) -> int:
        """So long it is not added up again, and pages don't ask for it."""
        return min(self.step, _MOST_KEPT_SECONDS)


RANGES = {
    "15m": Range("15 minutes", "15 minutes", 900),
    "1h": Range("1 hour", "hour", 3600),
    "24h": Range("24 hours", "24 hours", 86_400),
    "14d": Range("14 days", "14 days", progress.KEPT_DAYS * 86_400),
}

Span = Annotated[Literal["15m", "1h", "24h", "14d"], Query()]

_ROWS = (
    ("Completed lines a second", "completed", "each"),
    ("Failed lines a second", "failed", "each"),
    ("Tokens a second, read", "input_tokens", "each"),
    ("Tokens a second, written", "output_tokens", "each"),
    ("Latency, P50", "p50", "delay"),
    ("Latency, P95", "p95", "delay"),
    ("Latency, P99", "p99", "delay"),
)
"""What the table calls a column, and how it tells its values."""


async def _series(view: Viewing, request: Request, range: Span = "1h") -> Series:
    remembered: Remembered = request.app.state.remembered
    chosen = RANGES[range]
    look = partial(_add_up, view, chosen)
    what = ("activity", view.tenant, range)
    return await remembered.find(what, look, keep_seconds=chosen.kept_seconds)


async def _add_up(view: View, range: Range) -> Series:
    now = view.parts.clock.now()
    since = int(now - range.seconds) // range.step * range.step
    async with view.parts.database.read() as session:
        history = await progress.of_all(session, since=since, step=range.step)
    return series(history, since=since, until=now, step=range.step)


Found = Annotated[Series, Depends(_series)]


@router.get("/activity")
async def activity(view: Viewing, found: Found, range: Span = "1h") -> Response:
    rows = [(name, kind, summary(getattr(found, column))) for name, column, kind in _ROWS]
    return view.page(
        "activity.html",
        range=range,
        ranges=RANGES,
        rows=rows,
        step=found.step,
        delay_step=progress.LATENCY_INTERVAL_SECONDS,
    )


@router.get("/activity/data")
async def data(found: Found) -> Response:
    return JSONResponse(found.as_json(), headers=_HEADERS)


@router.get("/batches/{id}/chart")
async def of_batch(id: str, view: Viewing, request: Request) -> Response:
    """What one batch did, from its start to its end, or to now."""
    remembered: Remembered = request.app.state.remembered
    async with view.parts.database.read() as session:
        batch = await find_batch(session, id)
    # What was found before its end is not all of it.
    what = ("chart", view.tenant, id, batch.finalizing_at)
    look = partial(_add_up_batch, view, batch)
    found = await remembered.find(what, look, keep_seconds=progress.INTERVAL_SECONDS)
    return JSONResponse(found.as_json(), headers=_HEADERS)


async def _add_up_batch(view: View, batch: BatchRow) -> Series:
    now = view.parts.clock.now()
    since = batch.in_progress_at or batch.created_at
    end = batch.finalizing_at
    until = now if end is None else end + 1
    step = step_for(until - since)
    async with view.parts.database.read() as session:
        history = await progress.of_batch(session, batch.number, since=since, step=step)
    return series(
        history,
        since=since,
        until=until,
        step=step,
        kept_since=now - progress.KEPT_DAYS * 86_400,
        shortest=progress.INTERVAL_SECONDS if end is None else 1,
    )
