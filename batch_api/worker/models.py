"""`GET /v1/models`: the one model of this worker, listed also while it is loading."""

from typing import Any

from fastapi import APIRouter

from batch_api.worker.deps import Served, ServedHere
from batch_api.worker.engine_thread import Status

router = APIRouter()


@router.get("/v1/models")
async def list_models(served: ServedHere) -> dict[str, Any]:
    return {"object": "list", "data": [_model(served)]}


@router.get("/v1/models/{model:path}")
async def retrieve_model(model: str, served: ServedHere) -> dict[str, Any]:
    served.check_model(model)
    return _model(served)


def _model(served: Served[Any]) -> dict[str, Any]:
    engine = served.engine.engine
    model: dict[str, Any] = {
        "id": served.model,
        "object": "model",
        "created": served.created,
        "owned_by": "local",
        "task": served.task,
        "ready": served.engine.status is Status.READY,
    }
    return model | ({"max_model_len": engine.max_length} if engine else {})
