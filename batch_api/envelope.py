"""OpenAI's error envelope, and an `x-request-id` on every answer. API and worker share it."""

import json
import logging
import secrets
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batch_api.errors import APIError, BadRequest, MethodNotAllowed, NotFound, TooLarge
from batch_api.problems import problem

_log = logging.getLogger(__name__)

_Model = TypeVar("_Model", bound=BaseModel)

_SHOWN_CHARACTERS = 200
_ID_CHARACTERS = 128
_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")

_BY_STATUS = {error.status: error for error in (BadRequest, NotFound, MethodNotAllowed, TooLarge)}


def install(app: FastAPI) -> None:
    """From here on no error leaves the app in another shape, and no answer without its id."""
    app.add_exception_handler(APIError, _on_api_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_middleware(RequestIds)


def render(error: APIError) -> Response:
    # ASCII: a lone surrogate in a message must not break the answer.
    return Response(
        json.dumps(error.body),
        status_code=error.status,
        headers=error.headers,
        media_type="application/json",
    )


async def read_whole(chunks: AsyncIterator[bytes], limit: int) -> bytes:
    """A body of at most `limit` bytes. Raises TooLarge."""
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > limit:
            raise too_large(limit)
    return bytes(body)


def too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body is larger than {limit} bytes.")


def parse(model: type[_Model], raw: bytes) -> _Model:
    """A JSON body, whatever its content type says; a null is an absent parameter.

    Raises BadRequest.
    """
    try:
        value = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise BadRequest(f"The body of your request is not valid JSON: {error}.") from error
    if isinstance(value, dict):
        value = {name: given for name, given in value.items() if given is not None}
    return validate(model, value)


def validate(model: type[_Model], value: Any) -> _Model:
    """Raises BadRequest, naming the parameter."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise problem(error.errors(include_url=False), value) from error


class RequestIds:
    """Outermost of ours, but for who counts, so that the answer to an unexpected exception has its
    id too.

    What a route leaves in its request's `state.headers` is sent as well, with errors too.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _given_id(scope) or f"req_{secrets.token_hex(16)}"
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(raw=list(message.get("headers", [])))
                headers.update(state.get("headers", {}))
                headers["x-request-id"] = request_id
                message["headers"] = headers.raw
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            return
        except Exception:
            if started:
                raise
            _log.exception("unexpected error", extra={"request_id": request_id})
            failure = APIError("The server had an error while processing your request.")
            await render(failure)(scope, receive, send_with_id)


def _given_id(scope: Scope) -> str | None:
    given = Headers(scope=scope).get("x-request-id", "")
    sane = 0 < len(given) <= _ID_CHARACTERS and all("!" <= character <= "~" for character in given)
    return given if sane else None


async def _on_api_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, APIError)
    return render(error)


async def on_http_exception(request: Request, exception: Exception) -> Response:
    assert isinstance(exception, HTTPException)
    error = _BY_STATUS.get(exception.status_code, APIError)(
        f"{exception.detail}: {request.method} {request.url.path[:_SHOWN_CHARACTERS]}",
        headers=dict(exception.headers or {}),
    )
    error.status = exception.status_code
    if error.status == HTTPStatus.METHOD_NOT_ALLOWED:
        error.headers = {"allow": ", ".join(_allowed_methods(request))}
    error.type = "server_error" if error.status >= 500 else "invalid_request_error"
    return render(error)


def _allowed_methods(request: Request) -> list[str]:
    """Of all routes on this path: the framework tells those of one."""
    return [method for method in _METHODS if _is_allowed(method, request)]


def _is_allowed(method: str, request: Request) -> bool:
    scope = {**request.scope, "method": method}
    return any(route.matches(scope)[0] == Match.FULL for route in request.app.routes)


async def _on_invalid_request(request: Request, exception: Exception) -> Response:
    """Never 422: what FastAPI finds wrong is a 400 like any other."""
    assert isinstance(exception, RequestValidationError)
    errors = exception.errors()
    place = errors[0]["loc"][0]
    here = [{**error, "loc": error["loc"][1:]} for error in errors if error["loc"][0] == place]
    return render(problem(here, exception.body if place == "body" else {**request.query_params}))
