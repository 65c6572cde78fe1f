"""Puts the public HTTP API together."""

from collections.abc import Callable

from fastapi import Depends, FastAPI, Request, Response

from batch_api import __version__
from batch_api.api import (
    batches,
    files,
    health,
    inference,
    lines,
    models,
    results,
    retries,
    uploads,
)
from batch_api.api.deps import AllParts
from batch_api.api.documents import document
from batch_api.api.keys import check_key
from batch_api.api.rare_routes import RareRoutes
from batch_api.clock import Clock
from batch_api.envelope import install, render
from batch_api.errors import OutOfSpace, Unavailable
from batch_api.settings import Settings
from batch_api.store.blobs import Blobs
from batch_api.store.database import Database
from batch_api.store.trouble import StoreError, is_out_of_space, is_passing
from batch_api.upstreams import Upstreams


def create_app(
    *,
    database: Database,
    blobs: Blobs,
    upstreams: Upstreams,
    settings: Settings,
    clock: Clock,
    ring: Callable[[], None],
) -> FastAPI:
    """`ring` wakes the scheduler; it is called after the commit of what it shall see."""
    app = FastAPI(
        title="batch-api",
        version=__version__,
        description="OpenAI's Files, Uploads and Batches, on your own GPUs.",
        redirect_slashes=False,
    )
    app.state.parts = AllParts(
        database=database,
        blobs=blobs,
        upstreams=upstreams,
        rare_routes=RareRoutes(upstreams, clock),
        settings=settings,
        clock=clock,
        ring=ring,
    )
    install(app)
    app.add_exception_handler(OSError, _on_trouble)
    app.add_exception_handler(StoreError, _on_trouble)
    for routes in (files, uploads, batches, retries, results, lines, models, inference):
        app.include_router(routes.router, dependencies=[Depends(check_key)])
    app.include_router(health.router)
    document(app, settings)
    return app


async def _on_trouble(_request: Request, error: Exception) -> Response:
    """Of the disk or the database. What neither waiting nor space would cure is a plain 500."""
    if is_out_of_space(error):
        return render(OutOfSpace("The server's disk is full."))
    if is_passing(error):
        return render(Unavailable("The server is busy."))
    raise error
