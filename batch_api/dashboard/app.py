"""Puts the dashboard together, and adds it to the API's app."""

import asyncio

from fastapi import FastAPI

from batch_api.dashboard import batch, batches, events, line, new, sign_in, static

_PAGES = (batches, batch, line, new, events, sign_in, static)


def add_dashboard(app: FastAPI, stop: asyncio.Event) -> None:
    """Once `stop` is set, pages are no longer told what changes."""
    app.state.stop = stop
    for page in _PAGES:
        app.include_router(page.router)
