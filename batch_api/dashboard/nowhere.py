"""Addresses that are not there: people get a page that says so, programs the API's error."""

from fastapi import FastAPI, Request, Response

from batch_api.api.deps import nobodys_parts, session_token, signed_in
from batch_api.dashboard.pages import explain, view_of
from batch_api.envelope import on_http_exception
from batch_api.errors import APIError, NotFound


def tell_people(app: FastAPI) -> None:
    app.add_exception_handler(404, _on_not_found)


async def _on_not_found(request: Request, error: Exception) -> Response:
    if not _is_a_person(request):
        return await on_http_exception(request, error)
    await _look_who_it_is(request)
    return explain(request, NotFound("There is no page at this address."))


def _is_a_person(request: Request) -> bool:
    is_a_look = request.method in ("GET", "HEAD") and not request.url.path.startswith("/v1/")
    return is_a_look and "text/html" in request.headers.get("accept", "")


async def _look_who_it_is(request: Request) -> None:
    """Whoever may see the other pages finds the way to them."""
    try:
        tenant = await signed_in(request, request.headers.get("authorization", ""))
    except APIError:
        return
    if tenant is not None:
        await view_of(request, await nobodys_parts(request), tenant, session_token(request))
