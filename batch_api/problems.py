"""What pydantic finds wrong, said in OpenAI's words."""

from collections.abc import Mapping, Sequence
from typing import Any

from batch_api.errors import BadRequest

_SHOWN_CHARACTERS = 200

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
        expected = facts.get("expected") or _EXPECTED.get(kind.split("_")[0], "another type")
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
