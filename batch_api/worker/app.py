"""The HTTP half of a worker, put together."""

import time
from typing import Any

from fastapi import APIRouter, FastAPI

from batch_api import envelope
from batch_api.settings import Task
from batch_api.worker import chat, embeddings, health, models
from batch_api.worker.deps import Served
from batch_api.worker.engine_thread import EngineThread
from batch_api.worker.other_tasks import refusing_all_but

_ROUTERS: dict[Task, APIRouter] = {"generate": chat.router, "embed": embeddings.router}


def create_app(engine: EngineThread[Any], *, model: str, task: Task = "generate") -> FastAPI:
    """`model`: the name under which it is served."""
    app = FastAPI(title="batch-api worker")
    app.state.served = Served(model, task, int(time.time()), engine)
    envelope.install(app)
    for router in (_ROUTERS[task], health.router, models.router, refusing_all_but(task)):
        app.include_router(router)
    return app
