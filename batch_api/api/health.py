"""Is the process alive, and can it do its work?"""

import asyncio
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from batch_api.api.deps import AllParts, NobodysParts, Trouble
from batch_api.api.documents import errors
from batch_api.errors import Unavailable
from batch_api.store import batches
from batch_api.store.room import Room
from batch_api.store.trouble import StoreError
from batch_api.unusable import UpstreamUnusable

router = APIRouter(tags=["health"])

_STORE_SECONDS = 5
_UPSTREAM_SECONDS = 10

Check = dict[str, Any]
"""`status` is `ok` or a word for what is not; whatever else there is to tell stands beside it."""


@router.get("/health", operation_id="isAlive")
async def alive() -> dict[str, str]:
    return {"status": "alive"}


@router.get("/ready", operation_id="isReady", responses=errors())
async def ready(parts: NobodysParts, trouble: Trouble) -> Response:
    """200 if the store and at least one upstream answer, else 503.

    `degraded` names the checks whose status is not `ok`.
    """
    store, upstreams = await asyncio.gather(_store(parts, trouble), _upstreams(parts))
    checks = {"store": store, "disk": _disk(parts.blobs.room), "upstreams": upstreams}
    degraded = [name for name, check in checks.items() if check["status"] != "ok"]
    report: dict[str, Any] = {"status": "ready", "degraded": degraded, "checks": checks}
    away = [name for name, check in checks.items() if check["status"] == "away"]
    if not away:
        return JSONResponse(report)
    refusal = Unavailable(f"Not ready: {' and '.join(away)} can't be reached.")
    report["status"] = "not ready"
    return JSONResponse(report | refusal.body, status_code=503, headers=refusal.headers)


async def _store(parts: AllParts, trouble: Exception | None) -> Check:
    """`troubled`: reading works, but something could not be written a moment ago."""
    try:
        async with asyncio.timeout(_STORE_SECONDS), parts.database.read() as session:
            await batches.page(session, after=None, limit=0)
    except (StoreError, TimeoutError):
        return {"status": "away"}
    if trouble is not None:
        return {"status": "troubled", "reason": str(trouble).splitlines()[0]}
    return {"status": "ok"}


def _disk(room: Room) -> Check:
    """`low`: nothing more is taken in; `short`: nothing more is sent to the upstreams either."""
    status = "short" if room.is_short() else "low" if room.is_low() else "ok"
    return {
        "status": status,
        "free_bytes": room.free_bytes(),
        "min_free_bytes": room.min_free_bytes(),
    }


async def _upstreams(parts: AllParts) -> Check:
    """`some`: not all of them tell their models, or are known to answer."""
    try:
        async with asyncio.timeout(_UPSTREAM_SECONDS):
            models = await parts.upstreams.models()
    except (UpstreamUnusable, TimeoutError):
        return {"status": "away"}
    counts = {"up": parts.upstreams.count(up=True), "down": parts.upstreams.count(up=False)}
    is_whole = models.are_all and not counts["down"]
    return {"status": "ok" if is_whole else "some", "models": len(models.objects), **counts}
