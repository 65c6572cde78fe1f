"""The routes that a worker lacks because its model does something else: a 404 that says so.

404 and no other status: a server with several workers then asks the next one.
"""

from fastapi import APIRouter

from batch_api.errors import NotFound
from batch_api.settings import Task
from batch_api.worker.deps import NamingBody, ServedHere

_PATHS: dict[Task, tuple[str, ...]] = {
    "generate": ("/v1/chat/completions", "/v1/completions", "/v1/responses"),
    "embed": ("/v1/embeddings",),
}
_DOES: dict[Task, str] = {"generate": "generates text", "embed": "makes embeddings"}


def refusing_all_but(task: Task) -> APIRouter:
    router = APIRouter()
    for other, paths in _PATHS.items():
        for path in paths if other != task else ():
            router.add_api_route(path, _refuse, methods=["POST"])
    return router


async def _refuse(served: ServedHere, naming: NamingBody) -> None:
    if naming.model is not None:
        served.check_model(naming.model)
    paths = " and ".join(_PATHS[served.task])
    raise NotFound(
        f"The model here, '{served.model}', {_DOES[served.task]}: it answers at {paths}.",
        code="model_not_found",
    )
