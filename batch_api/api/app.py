"""Puts the public HTTP API together."""

import logging
from collections.abc import Callable, Sequence

from fastapi import Depends, FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from prometheus_client import CollectorRegistry

from batch_api import __version__
from batch_api.about import about
from batch_api.api import (
    batches,
    deliveries,
    files,
    health,
    inference,
    lines,
    metrics,
    models,
    reference,
    results,
    retries,
    uploads,
)
from batch_api.api.deps import AllParts, caller
from batch_api.api.dialects import chat, generate, tasks
from batch_api.api.documents import document
from batch_api.api.keys import Keyring
from batch_api.api.quotas import Quotas
from batch_api.api.rare_routes import RareRoutes
from batch_api.api.rates import Rates
from batch_api.api.readiness import UpstreamCheck
from batch_api.api.sessions import Sessions
from batch_api.clock import Clock
from batch_api.envelope import install, render
from batch_api.errors import APIError, OutOfSpace, Unavailable
from batch_api.metrics import Counted, HttpMetrics
from batch_api.routes import routes_of
from batch_api.settings import Settings
from batch_api.store.blobs import Blobs
from batch_api.store.database import Database
from batch_api.store.tenancy import NOBODY
from batch_api.store.trouble import DiskFailed, StoreError, is_out_of_space, is_passing
from batch_api.upstreams import Upstreams

_log = logging.getLogger(__name__)

_OPENAI_S = (files, uploads, batches, models, inference)
_OURS = (retries, results, lines, deliveries, chat, generate, tasks)
_FOR_ANYBODY = (health, metrics, reference)

_ROUTES = (
    *routes_of((*_OPENAI_S, *_OURS), dependencies=[Depends(caller)]),
    *routes_of(_FOR_ANYBODY),
)


def create_app(
    *,
    database: Database,
    blobs: Blobs,
    upstreams: Upstreams,
    settings: Settings,
    clock: Clock,
    ring: Callable[[], None],
    keyring: Keyring,
    registry: CollectorRegistry,
    sessions: Sessions,
) -> FastAPI:
    """`ring` wakes the scheduler; it is called after the commit of what it shall see.

    `registry`: what `/metrics` tells, of the scheduler too.
    """
    app = FastAPI(
        title="batch-api",
        version=__version__,
        description="OpenAI's Files, Uploads and Batches, on your own GPUs.",
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.state.keyring = keyring
    app.state.sessions = sessions
    app.state.rates = Rates(settings.max_requests_per_minute, clock)
    app.state.database = database
    app.state.registry = registry
    app.state.about = about()
    app.state.parts = AllParts(
        database=database.of(NOBODY),
        blobs=blobs,
        upstreams=upstreams,
        rare_routes=RareRoutes(upstreams, clock),
        upstream_check=UpstreamCheck(upstreams, clock),
        quotas=Quotas(settings),
        settings=settings,
        clock=clock,
        ring=ring,
    )
    _allow_origins(app, settings.allowed_origins)
    install(app)
    app.add_middleware(Counted, metrics=HttpMetrics(registry))
    app.add_exception_handler(OSError, _on_trouble)
    app.add_exception_handler(StoreError, _on_trouble)
    app.add_exception_handler(DiskFailed, _on_failure)
    app.router.routes.extend(_ROUTES)
    document(app, settings, keyring)
    return app


async def _on_failure(request: Request, error: Exception) -> Response:
    """The process ends; whoever asked is told before."""
    assert isinstance(error, DiskFailed)
    database: Database = request.app.state.database
    database.give_up(error)
    return render(APIError("The server's disk has failed."))


def _allow_origins(app: FastAPI, origins: Sequence[str]) -> None:
    """Tell browsers that pages of these may call the API, with a key, and read all it says."""
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["*"],
        )


async def _on_trouble(_request: Request, error: Exception) -> Response:
    """Of the disk or the database. What neither waiting nor space would cure is a plain 500."""
    if is_out_of_space(error):
        return render(OutOfSpace("The server's disk is full."))
    if is_passing(error):
        return render(Unavailable("The server is busy."))
    if isinstance(error, OSError):
        _log.error("the disk can't be read", extra={"reason": str(error)})
        return render(APIError("The server can't read that from its disk."))
    raise error
