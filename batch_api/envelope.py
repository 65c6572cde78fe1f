"""OpenAI's error envelope, and an `x-request-id` on every answer. API and worker share it."""

import json
import logging
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batch_api.errors import APIError, BadRequest, MethodNotAllowed, NotFound, TooLarge

_log = logging.getLogger(__name__)

_Model = TypeVar("_Model", bound=BaseModel)

_SHOWN_CHARACTERS = 200
_ID_CHARACTERS = 128

_BY_STATUS = {error.status: error for error in (BadRequest, NotFound, MethodNotAllowed, TooLarge)}

_EXPECTED = {
    "string": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "a boolean",
    "dict": "an object",
    "mapping": "an object",
    "model": "an object",
    "dataclass": "an object",
    "list": "an array",
    "tuple": "an array",
    "none": "null",
}
_GOT = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "a boolean",
    dict: "an object",
    list: "an array",
    type(None): "null",
}
_BOUNDS = {
    "greater_than_equal": ("ge", ">=", "below", "min"),
    "greater_than": ("gt", ">", "below", "min"),
    "less_than_equal": ("le", "<=", "above", "max"),
    "less_than": ("lt", "<", "above", "max"),
}
_LENGTHS = {
    "string_too_long": ("above", "max"),
    "string_too_short": ("below", "min"),
    "too_long": ("above", "max"),
    "too_short": ("below", "min"),
}
_TYPE_ENDINGS = ("_type", "_parsing", "_parsing_size", "_from_float")


def install(app: FastAPI) -> None:
    """From here on no error leaves the app in another shape, and no answer without its id."""
    app.add_exception_handler(APIError, _on_api_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
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


def problem(errors: Sequence[Mapping[str, Any]], value: Any) -> BadRequest:
    """The first of pydantic's errors about `value`, in OpenAI's words.

    A union gives an error for each of its members: the one that got furthest says most.
    """
    first = [error for error in errors if error["loc"][:1] == errors[0]["loc"][:1]]
    path, error = max(((_path(error, value), error) for error in first), key=_how_far)
    param = "".join(path).removeprefix(".")[:_SHOWN_CHARACTERS] or None
    code, message = _code_and_message(error, param)
    return BadRequest(message, param=param, code=code)


def _how_far(found: tuple[list[str], Mapping[str, Any]]) -> tuple[int, bool]:
    path, error = found
    return len(path), not error["type"].endswith(_TYPE_ENDINGS)


class RequestIds:
    """Outermost of ours, so that the answer to an unexpected exception has its id too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _given_id(scope) or f"req_{secrets.token_hex(16)}"
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(raw=list(message.get("headers", [])))
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


async def _on_http_exception(request: Request, exception: Exception) -> Response:
    assert isinstance(exception, HTTPException)
    error = _BY_STATUS.get(exception.status_code, APIError)(
        f"{exception.detail}: {request.method} {request.url.path[:_SHOWN_CHARACTERS]}",
        headers=dict(exception.headers or {}),
    )
    error.status = exception.status_code
    return render(error)


async def _on_invalid_request(request: Request, exception: Exception) -> Response:
    """Never 422: what FastAPI finds wrong is a 400 like any other."""
    assert isinstance(exception, RequestValidationError)
    errors = exception.errors()
    place = errors[0]["loc"][0]
    here = [{**error, "loc": error["loc"][1:]} for error in errors if error["loc"][0] == place]
    return render(problem(here, exception.body if place == "body" else {**request.query_params}))


def _path(error: Mapping[str, Any], value: Any) -> list[str]:
    """Where the error is; pydantic's own steps, such as the member of a union, left out."""
    path = []
    steps = error["loc"]
    for number, step in enumerate(steps, start=1):
        if isinstance(step, int) and isinstance(value, list):
            path.append(f"[{step}]")
            value = value[step] if step < len(value) else None
        elif isinstance(value, dict) and (step in value or number == len(steps)):
            path.append(f".{step}")
            value = value.get(step)
    return path


def _code_and_message(error: Mapping[str, Any], param: str | None) -> tuple[str | None, str]:
    kind, given, facts = error["type"], error.get("input"), error.get("ctx", {})
    named = f" '{param}'" if param else ""
    if kind == "json_invalid":
        return None, f"The body of your request is not valid JSON: {facts.get('error')}."
    if kind == "missing":
        return "missing_required_parameter", f"Missing required parameter: '{param or 'body'}'."
    if kind == "extra_forbidden":
        return "unknown_parameter", f"Unknown parameter:{named}."
    if kind in ("literal_error", "enum"):
        supported = f"Supported values are: {facts['expected']}."
        return "invalid_value", f"Invalid value for{named}: {_shown(given)}. {supported}"
    if kind in _BOUNDS:
        return _out_of_bounds(kind, facts, given, named)
    if kind in _LENGTHS:
        return _wrong_length(kind, facts, named)
    if kind.endswith(_TYPE_ENDINGS):
        expected = _EXPECTED.get(kind.split("_")[0], "another type")
        got = _GOT.get(type(given), "something else")
        message = f"Invalid type for{named}: expected {expected}, but got {got} instead."
        return "invalid_type", message
    return "invalid_value", f"Invalid{named}: {facts.get('error') or error['msg']}."


def _out_of_bounds(kind: str, facts: Mapping[str, Any], given: Any, named: str) -> tuple[str, str]:
    key, sign, side, end = _BOUNDS[kind]
    bound = facts[key]
    number = "decimal" if isinstance(bound, float) else "integer"
    end_in_words = {"min": "minimum", "max": "maximum"}[end]
    message = (
        f"Invalid{named}: {number} {side} {end_in_words} value. "
        f"Expected a value {sign} {bound:.10g}, but got {_shown(given)} instead."
    )
    return f"{number}_{side}_{end}_value", message


def _wrong_length(kind: str, facts: Mapping[str, Any], named: str) -> tuple[str, str]:
    """`facts` hold a string's bound, but not how long it is."""
    side, end = _LENGTHS[kind]
    bound = facts[f"{end}_length"]
    thing, unit = _measured(kind, facts)
    if thing == "array" and facts.get("actual_length") == 0:
        return "empty_array", f"Invalid{named}: empty array. Expected at least {bound} elements."
    most = "at most" if end == "max" else "at least"
    return (
        f"{thing}_{side}_{end}_{'properties' if thing == 'object' else 'length'}",
        f"Invalid{named}: {thing} has the wrong size. Expected {most} {bound} {unit}.",
    )


def _measured(kind: str, facts: Mapping[str, Any]) -> tuple[str, str]:
    if kind.startswith("string"):
        return "string", "characters"
    if facts.get("field_type") == "Dictionary":
        return "object", "properties"
    return "array", "elements"


def _shown(value: Any) -> str:
    """Python refuses to print integers of more than 4,300 digits."""
    if isinstance(value, int) and value.bit_length() > _SHOWN_CHARACTERS:
        return "a huge integer"
    return repr(value)[:_SHOWN_CHARACTERS]
