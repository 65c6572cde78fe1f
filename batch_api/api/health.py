"""Is the process alive, and can it do its work?"""

import asyncio
from typing import Any

from fastapi import APIRouter

from batch_api.api.deps import Parts
from batch_api.api.documents import errors
from batch_api.api.models import served
from batch_api.errors import Unavailable
from batch_api.store import batches
from batch_api.store.trouble import StoreError

router = APIRouter(tags=["health"])

_STORE_SECONDS = 5


@router.get("/health", operation_id="isAlive")
async def alive() -> dict[str, str]:
    return {"status": "alive"}


@router.get("/ready", operation_id="isReady", responses=errors())
async def ready(parts: Parts) -> dict[str, Any]:
    """200 if the store and at least one upstream answer, else 503."""
    try:
        async with asyncio.timeout(_STORE_SECONDS), parts.database.read() as session:
            await batches.page(session, after=None, limit=0)
    except (StoreError, TimeoutError) as error:
        raise Unavailable("The store doesn't answer.") from error
    await served(parts)
    upstreams = {"up": parts.upstreams.count(up=True), "down": parts.upstreams.count(up=False)}
    return {"status": "ready", "upstreams": upstreams}
