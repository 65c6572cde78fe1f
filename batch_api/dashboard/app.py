"""Puts the dashboard together, and adds it to the API's app."""

import asyncio

from fastapi import FastAPI

from batch_api.api.deps import AllParts
from batch_api.dashboard import (
    activity,
    batch,
    batches,
    events,
    health,
    line,
    new,
    playground,
    sign_in,
    static,
    storage,
    workers,
)
from batch_api.dashboard.fleet import Fleet
from batch_api.dashboard.nowhere import tell_people
from batch_api.remembered import Remembered
from batch_api.routes import routes_of

_PAGES = (
    *(batches, batch, line, new, activity, workers, storage, playground),
    *(health, events, sign_in, static),
)

_ROUTES = routes_of(_PAGES)


def add_dashboard(app: FastAPI, stop: asyncio.Event) -> None:
    """Once `stop` is set, pages are no longer told what changes."""
    parts: AllParts = app.state.parts
    app.state.stop = stop
    app.state.fleet = Fleet(parts.settings.workers or parts.upstreams.urls, parts.clock)
    app.state.remembered = Remembered(parts.clock)
    app.router.routes.extend(_ROUTES)
    tell_people(app)
