"""What is wrong with a setting, in a sentence for whoever wrote it."""

import os
import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import SettingsError

from batch_api.settings import Settings

_LIST = '["a", "b"]'
_HOST = "a host's name without a port, or *"
_URL = "a URL such as http://127.0.0.1:8000/v1"
_SUCH_AS = {
    "upstream": _URL,
    "workers": _URL,
    "webhook_urls": "a URL such as https://app.example.com/hook",
    "webhook_hosts": "a host's name, with a port or without one",
    "webhook_secret": "one that `batch-api webhooks secret` prints, or several with spaces between "
    "them",
    "allowed_hosts": _HOST,
    "allowed_media_hosts": _HOST,
    "allowed_origins": "an origin such as https://app.example.com, or *",
    "completion_windows": "hours or days such as 24h or 7d",
}
"""What patterns and checks of our own ask for."""
_KINDS = {
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "bool_parsing": "true or false",
    "tuple_type": f"a JSON list such as {_LIST}",
}
_BOUNDS = {
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "literal_error": "{expected}",
    "too_short": "at least {min_length} characters long",
}


def sentence(error: ValidationError | SettingsError, options: Mapping[str, Any]) -> str:
    """Of the first one that is bad. `options`: those that were given, by their settings' names."""
    if isinstance(error, SettingsError):
        return _no_json(error)
    problem = error.errors()[0]
    name = str(problem["loc"][0])
    told = "" if _is_secret(name) else f", not {problem['input']!r}"
    return f"{_called(name, options)} must be {_expected(name, problem)}{told}."


def _is_secret(name: str) -> bool:
    return "SecretStr" in str(Settings.model_fields[name].annotation)


def _called(name: str, options: Mapping[str, Any]) -> str:
    variable = _variable(name)
    is_option = options.get(name) not in (None, os.environ.get(variable))
    return f"--{name.replace('_', '-')}" if is_option else variable


def _expected(name: str, problem: ErrorDetails) -> str:
    kind = problem["type"]
    if told := _KINDS.get(kind) or _SUCH_AS.get(name):
        return told
    bound = _BOUNDS.get(kind)
    return bound.format_map(problem["ctx"]) if bound else f"otherwise ({problem['msg']})"


def _no_json(error: SettingsError) -> str:
    """Of a list: pydantic tells which one only in words."""
    found = re.search('field "(?P<name>[a-z_]+)"', str(error))
    assert found is not None, error
    variable = _variable(found["name"])
    return f"{variable} must be a JSON list such as {_LIST}, not {os.environ.get(variable)!r}."


def _variable(name: str) -> str:
    return f"BATCH_API_{name.upper()}"
