"""What OpenAI or other engines have and this one has not: refused by name, never ignored."""

import json
from typing import Any

from batch_api.errors import BadRequest
from batch_api.schemas.chat import ChatRequest
from batch_api.schemas.messages import Message
from batch_api.schemas.sampling import SamplingBody

# The values with which a parameter asks for nothing; None always does.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "modalities": (["text"], []),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "moderation": (),
    "suffix": ("",),
    "chat_template": (),
    "guided_grammar": (),
    "allowed_token_ids": ([],),
    "bad_words": ([],),
    "use_beam_search": (False,),
    "prompt_logprobs": (),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
}
_NEUTRAL_STRUCTURE: dict[str, tuple[Any, ...]] = {"grammar": (), "structural_tag": ()}


def refuse_unsupported(body: SamplingBody) -> None:
    """Raises BadRequest."""
    _refuse_extras(body.model_extra or {}, _NEUTRAL)
    if body.structured_outputs is not None:
        extras = body.structured_outputs.model_extra or {}
        _refuse_extras(extras, _NEUTRAL_STRUCTURE, "structured_outputs.")
    if isinstance(body, ChatRequest):
        _refuse_in_chat(body)


def _refuse_in_chat(chat: ChatRequest) -> None:
    for number, tool in enumerate(chat.tools):
        _refuse(tool.type, ("function",), f"tools[{number}].type")
    if chat.tool_choice is not None and chat.tool_choice.type == "custom":
        raise unsupported("tool_choice", ())
    for number, message in enumerate(chat.messages):
        _refuse_in_message(message, f"messages[{number}]")


def _refuse_in_message(message: Message, place: str) -> None:
    _refuse(message.audio, (), f"{place}.audio")
    for number, call in enumerate(message.tool_calls):
        _refuse(call.type, ("function",), f"{place}.tool_calls[{number}].type")
    for number, part in enumerate(message.content or ()):
        _refuse(part.type, ("text", "refusal"), f"{place}.content[{number}].type")


def _refuse_extras(
    extras: dict[str, Any], neutral: dict[str, tuple[Any, ...]], prefix: str = ""
) -> None:
    for name, values in neutral.items():
        _refuse(extras.get(name), values, prefix + name)


def _refuse(value: Any, neutral: tuple[Any, ...], param: str) -> None:
    if value is not None and value not in neutral:
        raise unsupported(param, neutral)


def unsupported(param: str, neutral: tuple[Any, ...]) -> BadRequest:
    supported = ", ".join(json.dumps(each) for each in neutral)
    but = f"; supported: {supported}" if supported else ""
    return BadRequest(
        f"This server does not support this value of '{param}'{but}.",
        param=param,
        code="unsupported_parameter",
    )
