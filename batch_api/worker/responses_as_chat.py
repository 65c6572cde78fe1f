"""A request to `/v1/responses` is a chat in other words: this says it in a chat's."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from batch_api.envelope import validate
from batch_api.errors import BadRequest
from batch_api.schemas.chat import ChatRequest
from batch_api.schemas.responses import (
    InputItem,
    InputPart,
    ResponseRequest,
    ResponseTool,
    TextFormat,
)
from batch_api.worker.response_errors import told_as_response
from batch_api.worker.unsupported import refuse_unsupported, unsupported

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "previous_response_id": (),
    "conversation": (),
    "background": (False,),
    "prompt": (),
}
# What engines take beyond OpenAI's parameters, and other parameters that chats have.
_PASSED_ON = (
    *("seed", "stop", "frequency_penalty", "presence_penalty", "logit_bias", "ignore_eos"),
    *("min_tokens", "stop_token_ids", "top_k", "min_p", "repetition_penalty"),
    *("chat_template", "chat_template_kwargs"),
)
_TEXTS = ("input_text", "output_text", "text", "refusal")


@dataclass(frozen=True, slots=True)
class ResponseAsChat:
    body: ResponseRequest
    chat: ChatRequest


def as_chat(body: ResponseRequest) -> ResponseAsChat:
    """Raises BadRequest for what is not supported."""
    extras = body.model_extra or {}
    for name, neutral in _NEUTRAL.items():
        if extras.get(name) is not None and extras[name] not in neutral:
            raise unsupported(name, neutral)
    chat = {
        "model": body.model,
        "messages": _messages(body),
        "max_completion_tokens": body.max_output_tokens,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "response_format": _format(body.text.format),
        "tools": [_tool(number, tool) for number, tool in enumerate(body.tools)],
        "tool_choice": _choice(body.tool_choice),
        "parallel_tool_calls": body.parallel_tool_calls,
        "reasoning_effort": body.reasoning.effort if body.reasoning else None,
        "logprobs": body.wants_logprobs,
        "top_logprobs": body.top_logprobs,
        "stream": body.stream,
    }
    passed_on = {name: extras[name] for name in _PASSED_ON if name in extras}
    with told_as_response():
        request = validate(ChatRequest, chat | passed_on)
        refuse_unsupported(request)
    return ResponseAsChat(body, request)


def _messages(body: ResponseRequest) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if body.instructions is not None:
        messages.append({"role": "system", "content": body.instructions})
    if isinstance(body.input, str):
        return [*messages, {"role": "user", "content": body.input}]
    for number, item in enumerate(body.input):
        if item.type == "function_call":
            _add_call(messages, _call(item))
        else:
            messages += _message(item, f"input[{number}]")
    return messages


def _add_call(messages: list[dict[str, Any]], call: dict[str, Any]) -> None:
    """What was said before a call and the calls beside it are of the same message."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant"})
    messages[-1].setdefault("tool_calls", []).append(call)


def _message(item: InputItem, place: str) -> Iterator[dict[str, Any]]:
    match item.type:
        case "message":
            yield {"role": item.role, "content": _text(item.content, f"{place}.content")}
        case "function_call_output":
            content = _text(item.output, f"{place}.output")
            yield {"role": "tool", "tool_call_id": item.call_id, "content": content}
        case "reasoning":  # what earlier answers thought is not told again
            return
        case _:
            raise unsupported(f"{place}.type", ("message", "function_call", "function_call_output"))


def _text(parts: list[InputPart] | None, place: str) -> str:
    for number, part in enumerate(parts or ()):
        if part.type not in _TEXTS:
            raise unsupported(f"{place}[{number}].type", _TEXTS)
    return "\n".join(part.text or part.refusal or "" for part in parts or ())


def _call(item: InputItem) -> dict[str, Any]:
    function = {"name": item.name, "arguments": item.arguments}
    return {"id": item.call_id, "type": "function", "function": function}


def _format(given: TextFormat) -> dict[str, Any]:
    if given.type != "json_schema":
        return {"type": given.type}
    schema = {"name": given.name or "answer", "schema": given.schema_}
    return {"type": "json_schema", "json_schema": schema}


def _tool(number: int, tool: ResponseTool) -> dict[str, Any]:
    if tool.type != "function":
        raise unsupported(f"tools[{number}].type", ("function",))
    return {"type": "function", "function": tool.model_dump(exclude={"type"}, exclude_none=True)}


def _choice(choice: str | dict[str, Any]) -> str | dict[str, Any]:
    if isinstance(choice, str):
        return choice
    match choice:
        case {"type": "function", "name": name}:
            return {"type": "function", "function": {"name": name}}
        case {"type": "allowed_tools", "mode": mode, "tools": list(tools)}:
            named = [_choice(tool) for tool in tools if isinstance(tool, dict)]
            allowed = {"mode": mode, "tools": named}
            return {"type": "allowed_tools", "allowed_tools": allowed}
        case {"type": "function" | "allowed_tools"}:
            message = "'tool_choice' is not whole."
            raise BadRequest(message, param="tool_choice", code="invalid_value")
    raise unsupported("tool_choice", ("none", "auto", "required", "function", "allowed_tools"))
