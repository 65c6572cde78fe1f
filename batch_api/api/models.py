"""`/v1/models`: what the upstreams serve."""

import asyncio
from typing import Any

from fastapi import APIRouter

from batch_api.api.deps import AllParts, Parts
from batch_api.api.documents import errors, links
from batch_api.api.missing import no_such_model
from batch_api.errors import Unavailable
from batch_api.unusable import UpstreamUnusable

router = APIRouter(prefix="/v1/models", tags=["models"])

_UPSTREAM_SECONDS = 10
_LINKS = links(retrieveModel={"parameters": {"id": "$response.body#/data/0/id"}})


@router.get("", operation_id="listModels", responses=errors() | _LINKS)
async def listing(parts: Parts) -> dict[str, Any]:
    return {"object": "list", "data": await served(parts)}


@router.get("/{id:path}", operation_id="retrieveModel", responses=errors(404))
async def one(id: str, parts: Parts) -> dict[str, Any]:
    """Ids of models have slashes and colons in them."""
    for model in await served(parts):
        if model["id"] == id:
            return model
    raise no_such_model(id)


async def served(parts: AllParts) -> list[dict[str, Any]]:
    """Raises Unavailable if no upstream answers."""
    try:
        async with asyncio.timeout(_UPSTREAM_SECONDS):
            return (await parts.upstreams.models()).objects
    except (UpstreamUnusable, TimeoutError) as error:
        raise Unavailable("No upstream answers.") from error
