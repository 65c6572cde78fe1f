"""`/health`, `/ready`, `/version`: what an operator and a load balancer want to know."""

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from batch_api.errors import Unavailable
from batch_api.worker.deps import ServedHere
from batch_api.worker.engine_thread import Status

router = APIRouter()


@router.get("/health")
async def health(served: ServedHere) -> dict[str, Any]:
    """200 from the first moment on; `ready` says whether requests are taken."""
    thread, engine = served.engine, served.engine.engine
    return {
        "status": thread.status,
        "ready": thread.status is Status.READY,
        "model": served.model,
        "task": served.task,
        "running": thread.running,
        "waiting": thread.waiting,
        "max_waiting": thread.max_waiting,
        "max_sequences": engine.max_sequences if engine else None,
        "max_length": engine.max_length if engine else None,
        "device": engine.device if engine else None,
        "dtype": engine.dtype if engine else None,
        "memory_bytes": engine.memory_bytes if engine else None,
    }


@router.get("/ready")
async def ready(served: ServedHere) -> Response:
    """200 if requests are taken, else 503."""
    status = served.engine.status
    if status is Status.READY:
        return JSONResponse({"status": status})
    refusal = Unavailable(f"Not ready: the worker is {status}.")
    return JSONResponse({"status": status} | refusal.body, 503, refusal.headers)


@router.get("/version")
async def version(served: ServedHere) -> dict[str, Any]:
    return served.about
