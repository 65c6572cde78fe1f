"""The HTTP half of a worker, put together."""

import time

from fastapi import FastAPI

from batch_api import envelope
from batch_api.worker import chat, completions, health, models, responses
from batch_api.worker.deps import Served
from batch_api.worker.engine_thread import EngineThread


def create_app(engine: EngineThread, *, model: str) -> FastAPI:
    """`model`: the name under which it is served."""
    app = FastAPI(title="batch-api worker")
    app.state.served = Served(model, int(time.time()), engine)
    envelope.install(app)
    for module in (chat, completions, health, models, responses):
        app.include_router(module.router)
    return app
