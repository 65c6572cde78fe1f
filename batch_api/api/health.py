"""Is the process alive, and can it do its work?"""

import asyncio
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from batch_api.api.deps import About, AllParts, NobodysParts, Trouble
from batch_api.api.documents import errors
from batch_api.api.readiness import Check
from batch_api.errors import Unavailable
from batch_api.store import batches
from batch_api.store.room import Room
from batch_api.store.trouble import StoreError

router = APIRouter(tags=["health"])

_STORE_SECONDS = 5
_NOT_READY = ("away", "loading")


@router.get("/health", operation_id="isAlive")
async def alive() -> dict[str, str]:
    return {"status": "alive"}


@router.get("/version", operation_id="getVersion")
async def version(about: About) -> dict[str, Any]:
    return about


@router.get("/ready", operation_id="isReady", responses=errors())
async def ready(parts: NobodysParts, trouble: Trouble) -> Response:
    """200 if the store answers and at least one upstream has a model ready, else 503.

    `degraded` names the checks whose status is not `ok`.
    """
    store, upstreams = await asyncio.gather(_store(parts, trouble), parts.upstream_check.take())
    checks = {"store": store, "disk": _disk(parts.blobs.room), "upstreams": upstreams}
    degraded = [name for name, check in checks.items() if check["status"] != "ok"]
    report: dict[str, Any] = {"status": "ready", "degraded": degraded, "checks": checks}
    reasons = [check["reason"] for check in checks.values() if check["status"] in _NOT_READY]
    if not reasons:
        return JSONResponse(report)
    refusal = Unavailable(f"Not ready: {'; '.join(reasons)}.")
    report["status"] = "not ready"
    return JSONResponse(report | refusal.body, status_code=503, headers=refusal.headers)


async def _store(parts: AllParts, trouble: Exception | None) -> Check:
    """`troubled`: reading works, but something could not be written a moment ago."""
    try:
        async with asyncio.timeout(_STORE_SECONDS), parts.database.read() as session:
            await batches.page(session, after=None, limit=0)
    except (StoreError, TimeoutError):
        return {"status": "away", "reason": "the database can't be read"}
    if trouble is not None:
        return {"status": "troubled", "reason": str(trouble).splitlines()[0]}
    return {"status": "ok"}


def _disk(room: Room) -> Check:
    """`low`: nothing more is taken in; `short`: nothing more is sent to the upstreams either."""
    told: Check = {
        "status": room.state(),
        "free_bytes": room.free_bytes(),
        "min_free_bytes": room.min_free_bytes(),
    }
    if told["status"] == "short":
        told["reason"] = "the disk is full"
    return told
