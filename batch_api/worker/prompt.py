"""From messages to the ids that are fed: the model's chat template, then its tokenizer."""

import json
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from batch_api.errors import BadRequest
from batch_api.schemas.chat import ChatRequest
from batch_api.schemas.messages import Message
from batch_api.worker.preamble import described, plain_messages, role_of
from batch_api.worker.sampling import check_text
from batch_api.worker.tool_syntax.families import syntax_of
from batch_api.worker.tool_syntax.pieces import Syntax
from batch_api.worker.tools import Toolbox, template_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# About a millisecond of tokenizing, and of rendering: more would hold up the event loop.
LONG_CHARACTERS = 4000
_MANY_PARTS = 100  # a message counts as one more
_SHOWN_CHARACTERS = 300

# What `apply_chat_template` and the templates' own environment know by these names.
_RESERVED = {
    *("conversation", "messages", "tools", "documents", "chat_template", "tokenize", "padding"),
    *("add_generation_prompt", "continue_final_message", "sanitize_control_tokens", "truncation"),
    *("max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask", "self"),
    *("tokenizer_kwargs", "raise_exception", "strftime_now", "bos_token", "eos_token"),
    *("pad_token", "unk_token"),
}


def is_long(chat: ChatRequest) -> bool:
    """Whether to render and tokenize it is not for the event loop."""
    messages = chat.messages
    if chat.offered_functions:
        return True
    if sum(1 + len(message.content or ()) for message in messages) > _MANY_PARTS:
        return True
    return sum(len(message.text) for message in messages) > LONG_CHARACTERS


def chat_prompt(
    tokenizer: "PreTrainedTokenizerBase",
    chat: ChatRequest,
    tools: Toolbox | None,
    *,
    max_length: int,
) -> list[int]:
    """Raises BadRequest if the messages can't be put to this model."""
    text = _render(tokenizer, chat, tools)
    check_text(text, max_length=max_length, param="messages")
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    if not ids:
        raise BadRequest("The messages make an empty prompt.", param="messages")
    return ids


def _render(tokenizer: "PreTrainedTokenizerBase", chat: ChatRequest, tools: Toolbox | None) -> str:
    template = template_of(tokenizer)
    if not template:
        raise BadRequest(
            "This model has no chat template, so it can't be chatted with.", param="model"
        )
    try:
        text = tokenizer.apply_chat_template(
            tokenize=False,
            add_generation_prompt=True,
            **_variables(chat, template),
            **_conversation(chat, template, tools),
        )
    except (TemplateError, TypeError, ValueError) as error:  # as its author thought fit
        reason = " ".join(str(error).split())[:_SHOWN_CHARACTERS]
        message = f"The model's chat template refuses the messages: {reason}"
        raise BadRequest(message, param="messages", code="invalid_value") from error
    assert isinstance(text, str)
    return text


def _conversation(chat: ChatRequest, template: str, tools: Toolbox | None) -> dict[str, Any]:
    """Told by the template, if it knows the syntax of calls that we know; or else by us."""
    functions = tools.functions if tools else ()
    syntax = syntax_of(template)
    if syntax is None:
        return {"conversation": plain_messages(chat.messages, functions)}
    conversation = [_for_template(message, syntax) for message in chat.messages]
    told = {"tools": [described(function) for function in functions]} if functions else {}
    return {"conversation": conversation, **told}


def _for_template(message: Message, syntax: Syntax) -> dict[str, Any]:
    told: dict[str, Any] = {"role": role_of(message), "content": message.text}
    if message.calls:
        told["tool_calls"] = [
            {
                "id": syntax.known_id(id),
                "type": "function",
                "function": {"name": call.name, "arguments": _as_object(call.arguments)},
            }
            for id, call in zip(message.call_ids, message.calls, strict=True)
        ]
    if message.role in ("tool", "function"):
        id = message.tool_call_id or message.name or ""
        told |= {"role": "tool", "tool_call_id": syntax.known_id(id)}
        told |= {"name": message.name} if message.name else {}
    return told


def _as_object(arguments: str) -> Any:
    """Templates print JSON themselves. What a model wrote wrongly stays the text that it is."""
    try:
        return json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return arguments


def _variables(chat: ChatRequest, template: str) -> dict[str, Any]:
    """What the client may tell the template, beside the messages. Raises BadRequest."""
    given = chat.chat_template_kwargs
    if refused := sorted(_RESERVED & given.keys()):
        raise BadRequest(
            f"'chat_template_kwargs' can't set '{refused[0]}'.",
            param=f"chat_template_kwargs.{refused[0]}",
            code="unsupported_parameter",
        )
    return _of_effort(chat.reasoning_effort, template) | given


def _of_effort(effort: str | None, template: str) -> dict[str, Any]:
    """Some templates take the effort itself, some can only switch thinking off."""
    if effort is None:
        return {}
    variables = {"reasoning_effort": effort, "enable_thinking": effort != "none"}
    return {name: value for name, value in variables.items() if name in template}
