"""The routes of an app, put together from the modules that have them."""

from collections.abc import Iterable, Sequence
from types import ModuleType

from fastapi import APIRouter
from fastapi.params import Depends
from starlette.routing import BaseRoute


def routes_of(
    modules: Iterable[ModuleType], *, dependencies: Sequence[Depends] = ()
) -> list[BaseRoute]:
    """For `app.router.routes`, of any number of apps.

    What an app includes itself FastAPI builds anew on that app's first request, 0.3 s for all of
    the server's; these are built once in a process. `dependency_overrides` don't reach them.
    """
    router = APIRouter(dependencies=list(dependencies))
    for module in modules:
        router.include_router(module.router)
    return router.routes
