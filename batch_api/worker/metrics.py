"""`GET /metrics` of a worker: vLLM's names where they mean the same, for its dashboards' sake."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, Gauge

from batch_api.metrics import exposition, new_registry
from batch_api.settings import Task
from batch_api.worker.deps import ServedHere
from batch_api.worker.engine_thread import EngineThread, Status, Watch
from batch_api.worker.gpus import Gpus
from batch_api.worker.watches import ENGINE, LABELS, EmbeddingWatch, GenerationWatch

router = APIRouter()

_WATCHES: dict[Task, Callable[[CollectorRegistry, str], Watch]] = {
    "generate": GenerationWatch,
    "embed": EmbeddingWatch,
}


@router.get("/metrics")
async def metrics(served: ServedHere) -> Response:
    return exposition(served.registry)


def watching(thread: EngineThread[Any], *, model: str, task: Task) -> CollectorRegistry:
    """A registry that tells of this thread, from now on."""
    registry = new_registry()

    def gauge(name: str, told: str, value: Callable[[], float]) -> None:
        made = Gauge(name, told, LABELS, registry=registry)
        made.labels(model, ENGINE).set_function(value)

    gauge("vllm:num_requests_running", "Sequences that run.", lambda: thread.running)
    gauge("vllm:num_requests_waiting", "Sequences that wait.", lambda: thread.waiting)
    gauge(
        "batch_api_worker_ready",
        "Whether requests are taken: 0 while the model loads, and on the way out.",
        lambda: thread.status is Status.READY,
    )
    if task == "generate":
        # Memory for a whole sequence is set aside with its slot, however much is written there.
        gauge(
            "vllm:kv_cache_usage_perc",
            "Slots of the cache that are taken; 1 means all of them.",
            lambda: thread.running / thread.engine.max_sequences if thread.engine else 0.0,
        )
    registry.register(Gpus.found())
    thread.watch(_WATCHES[task](registry, model))
    return registry
