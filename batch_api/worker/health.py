"""`GET /health`: what an operator and a load balancer want to know."""

from typing import Any

from fastapi import APIRouter

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
