"""What the OpenAPI document says beyond the signatures of routes: bodies, errors, links, headers.

Bodies are read by us, not by FastAPI: whatever a client labels them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from batch_api.api.keys import Keyring
from batch_api.schemas.batches import NewBatch
from batch_api.schemas.errors import ErrorEnvelope
from batch_api.schemas.generations import BatchGeneration, Generation
from batch_api.schemas.queries import Queries, Query
from batch_api.schemas.tasks import Text
from batch_api.schemas.uploads import NewUpload, UploadCompletion
from batch_api.settings import Settings

_BODIES = (
    NewBatch,
    NewUpload,
    UploadCompletion,
    Query,
    Queries,
    Generation,
    BatchGeneration,
    Text,
    ErrorEnvelope,
)
_REF = "#/components/schemas/{model}"

_MEANINGS = {
    400: "The request is not right; the error says what is wrong with it.",
    401: "The key is missing or wrong, where the server wants one.",
    403: "The key is not the operator's.",
    404: "It is not there, or no longer.",
    409: "The object's status does not allow this; to try again is useless.",
    413: "The body is too large.",
    415: "The content encoding is not known.",
    416: "The file has no such range.",
    429: "Too many requests: come back later.",
    500: "The server had an error.",
    502: "The upstream broke off.",
    503: "Overloaded, or nobody is there to answer: come back later.",
    507: "The disk is full.",
}
_RETRY_AFTER = {"schema": {"type": "number"}, "description": "Seconds; at most 120."}
_HEADERS: dict[int, dict[str, Any]] = {
    409: {"x-should-retry": {"schema": {"const": "false"}}},
    416: {"content-range": {"schema": {"type": "string"}}},
    429: {"retry-after": _RETRY_AFTER},
    503: {"retry-after": _RETRY_AFTER},
    507: {"x-should-retry": {"schema": {"const": "false"}}},
}
_REQUEST_ID = {"schema": {"type": "string"}, "description": "For the server's logs."}
_ALWAYS = (401, 429, 500, 503)
_WITH_A_BODY = (400, 413, 415, 507)


def errors(*statuses: int, body: bool = False) -> dict[int | str, dict[str, Any]]:
    """The responses other than 2xx; `body`: with what any request with a body may get."""
    every = {*statuses, *_ALWAYS, *(_WITH_A_BODY if body else ())}
    return {status: _error(status) for status in sorted(every)}


def takes(model: type[BaseModel]) -> dict[str, Any]:
    """A JSON body."""
    return _body({"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}})


def takes_any(**schemas: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with at least these properties, for somebody else to judge."""
    schema = {"type": "object", "properties": schemas, "required": list(schemas)}
    return _body({"application/json": {"schema": schema}})


def takes_form(required: Sequence[str], **schema: Any) -> dict[str, Any]:
    """A form; `schema` is that of its parts."""
    form = {"type": "object", "required": list(required), **schema}
    return _body({"multipart/form-data": {"schema": form}})


def links(**targets: Mapping[str, Any]) -> dict[int | str, dict[str, Any]]:
    """What can be done with the object of a 200: by operation, what is taken from where."""
    return {
        200: {
            "links": {
                operation: {"operationId": operation, **target}
                for operation, target in targets.items()
            }
        }
    }


def document(app: FastAPI, settings: Settings, keyring: Keyring) -> None:
    """Replace what `app` says of itself, once it has all its routes."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _openapi(app, settings)
        # The first key may come at any time.
        return app.openapi_schema | ({"security": [{"key": []}]} if keyring.is_needed else {})

    app.openapi = openapi  # type: ignore[method-assign]


def _openapi(app: FastAPI, settings: Settings) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
    )
    _, bodies = models_json_schema([(model, "validation") for model in _BODIES], ref_template=_REF)
    schemas = document["components"]["schemas"]
    schemas |= {name: schema for name, schema in bodies["$defs"].items() if name not in schemas}
    schemas["NewBatch"]["properties"]["completion_window"]["enum"] = [*settings.completion_windows]
    # FastAPI's own envelope, which nobody ever gets.
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
            for response in operation["responses"].values():
                response.setdefault("headers", {})["x-request-id"] = _REQUEST_ID
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return document


def _body(content: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": content}}


def _error(status: int) -> dict[str, Any]:
    envelope = {"schema": {"$ref": _REF.format(model=ErrorEnvelope.__name__)}}
    return {
        "description": _MEANINGS[status],
        "content": {"application/json": envelope},
        "headers": dict(_HEADERS.get(status, {})),
    }
