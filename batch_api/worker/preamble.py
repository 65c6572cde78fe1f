"""Tools for models whose chat template knows none: told in plain words, in Hermes' syntax.

What a template without tools can't render either becomes plain text: calls that were made, and
their results.
"""

import json
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from batch_api.schemas.messages import Message
from batch_api.schemas.tools import Function
from batch_api.worker.tool_syntax.families import Hermes

_PREAMBLE = """\
You may call functions to help with the user's request. These are the functions, one JSON object \
a line:
{functions}
To call one, write nothing but this, once for each call:
<tool_call>
{{"name": "the function's name", "arguments": {{"its": "arguments"}}}}
</tool_call>
The results come in <tool_response></tool_response>."""


def plain_messages(
    messages: list[Message], functions: tuple[Function, ...]
) -> list[dict[str, Any]]:
    """Messages of system, user and assistant only, each with a text."""
    plain = list(_plain(messages))
    if functions:
        _tell_of(functions, plain)
    return plain


def _tell_of(functions: tuple[Function, ...], plain: list[dict[str, Any]]) -> None:
    lines = "\n".join(json.dumps(described(function)["function"]) for function in functions)
    preamble = _PREAMBLE.format(functions=lines)
    if plain[0]["role"] == "system":
        plain[0]["content"] += f"\n\n{preamble}"
    else:
        plain.insert(0, {"role": "system", "content": preamble})


def described(function: Function) -> dict[str, Any]:
    """A function as chat templates expect it."""
    facts = {
        "name": function.name,
        "description": function.description or "",
        "parameters": function.parameters or {},
    }
    return {"type": "function", "function": facts}


def _plain(messages: list[Message]) -> Iterator[dict[str, Any]]:
    """The results of several calls are one turn of the user."""
    for is_result, group in groupby(messages, key=_is_result):
        if is_result:
            results = (f"<tool_response>\n{each.text}\n</tool_response>" for each in group)
            yield {"role": "user", "content": "\n".join(results)}
        else:
            yield from ({"role": role_of(each), "content": _with_calls(each)} for each in group)


def _is_result(message: Message) -> bool:
    return message.role in ("tool", "function")


def role_of(message: Message) -> str:
    """Templates know no developer; that is the newer word for the system's role."""
    return "system" if message.role == "developer" else message.role


def _with_calls(message: Message) -> str:
    texts = [message.text] if message.text else []
    for call in message.calls:
        before, after = Hermes().around(call.name)
        texts.append(before + (call.arguments or "{}") + after)
    return "\n".join(texts)
