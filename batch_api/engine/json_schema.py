"""JSON schemas as they are compiled: within bounds, and with objects that end.

An object that lists its properties and says nothing of others gets no others. JSON Schema would
allow any, and a small model then goes on inventing keys; OpenAI has `strict` schemas say so
themselves. What is composed of several schemas is left as it is: closed parts would exclude each
other.
"""

import json
from collections.abc import Iterator
from typing import Any

from batch_api.engine.errors import GrammarRefused

_MOST_BYTES = 128 * 1024
_MOST_NESTED = 64

_OPEN = {"additionalProperties", "patternProperties", "unevaluatedProperties"}
_COMPOSED = {"allOf", "anyOf", "oneOf", "$ref", "if", "dependentSchemas"}
_NAMED = ("properties", "$defs", "definitions", "patternProperties")
_SINGLE = ("items", "additionalProperties")
_LISTED = ("prefixItems", "anyOf", "oneOf", "allOf")


def read_schema(text: str) -> dict[str, Any]:
    """Raises GrammarRefused, or ValueError if it is no JSON."""
    check_size(text)
    schema = json.loads(text)
    if schema is True:
        schema = {}
    if not isinstance(schema, dict):
        raise GrammarRefused("a schema must be an object")
    for node, depth in _nodes(schema):
        if depth > _MOST_NESTED:
            raise GrammarRefused(f"the schema is nested more than {_MOST_NESTED} deep")
        _check_least_properties(node)
    if not any(_is_composed(each) for each in _schemas(schema)):
        for each in _schemas(schema):
            _close(each)
    return schema


def check_size(text: str) -> None:
    size = len(text.encode(errors="replace"))
    if size > _MOST_BYTES:
        raise GrammarRefused(f"it has {size:,} bytes; at most {_MOST_BYTES:,} are taken")


def _close(schema: dict[str, Any]) -> None:
    if schema.get("properties") and not schema.keys() & _OPEN:
        schema["additionalProperties"] = False


def _is_composed(schema: dict[str, Any]) -> bool:
    parts = schema.get("allOf")
    is_sum = isinstance(parts, list) and len(parts) > 1
    return is_sum or ("properties" in schema and bool(schema.keys() & _COMPOSED))


def _schemas(schema: Any) -> Iterator[dict[str, Any]]:
    """It and every schema in it."""
    if not isinstance(schema, dict):
        return
    yield schema
    for keyword in _SINGLE:
        yield from _schemas(schema.get(keyword))
    for keyword in (*_NAMED, *_LISTED):
        inner = schema.get(keyword)
        found = list(inner.values()) if isinstance(inner, dict) else inner
        for each in found if isinstance(found, list) else ():
            yield from _schemas(each)


def _nodes(schema: dict[str, Any]) -> Iterator[tuple[dict[str, Any], int]]:
    """Every object in it, and how deep it is."""
    waiting: list[tuple[Any, int]] = [(schema, 1)]
    while waiting:
        node, depth = waiting.pop()
        if isinstance(node, dict):
            yield node, depth
        if isinstance(node, dict | list):
            inner = node.values() if isinstance(node, dict) else node
            waiting += [(each, depth + 1) for each in inner]


def _check_least_properties(node: dict[str, Any]) -> None:
    """llguidance counts a key that comes twice as two; JSON does not."""
    least, required = node.get("minProperties"), node.get("required")
    named = len(required) if isinstance(required, list) else 0
    if isinstance(least, int) and least > max(1, named):
        raise GrammarRefused("minProperties above 1 is not supported, but for required properties")
