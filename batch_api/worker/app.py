"""The HTTP half of a worker, put together."""

import time
from types import ModuleType
from typing import Any

from fastapi import FastAPI

from batch_api import envelope
from batch_api.about import about
from batch_api.metrics import Counted, HttpMetrics
from batch_api.routes import routes_of
from batch_api.settings import Task
from batch_api.worker import (
    chat,
    completions,
    embeddings,
    generate_batch,
    health,
    metrics,
    models,
    responses,
)
from batch_api.worker.deps import Served
from batch_api.worker.engine_thread import EngineThread
from batch_api.worker.metrics import watching
from batch_api.worker.other_tasks import refusing_all_but

_MODULES: dict[Task, tuple[ModuleType, ...]] = {
    "generate": (chat, completions, responses, generate_batch),
    "embed": (embeddings,),
}
_ROUTES = {
    task: routes_of((*modules, health, metrics, models)) for task, modules in _MODULES.items()
}


def create_app(engine: EngineThread[Any], *, model: str, task: Task = "generate") -> FastAPI:
    """`model`: the name under which it is served."""
    app = FastAPI(title="batch-api worker", openapi_url=None)
    registry = watching(engine, model=model, task=task)
    app.state.served = Served(model, task, int(time.time()), engine, registry, about())
    envelope.install(app)
    app.add_middleware(Counted, metrics=HttpMetrics(registry))
    app.router.routes.extend(_ROUTES[task])
    app.include_router(refusing_all_but(task))
    return app
