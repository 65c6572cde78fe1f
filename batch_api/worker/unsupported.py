"""What OpenAI's chat has and this engine has not yet: refused by name, never ignored."""

import json
from typing import Any

from batch_api.errors import BadRequest
from batch_api.schemas.chat import ChatRequest, Message

# The values with which a parameter asks for nothing; None always does.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "modalities": (["text"], []),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "moderation": (),
    "min_tokens": (0,),
    "stop_token_ids": ([],),
    "top_k": (0, -1),
    "min_p": (0,),
    "repetition_penalty": (1,),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "structured_outputs": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
}
_NEUTRAL_IN_MESSAGE: dict[str, tuple[Any, ...]] = {
    "role": ("system", "developer", "user", "assistant"),
    "tool_calls": ([],),
    "function_call": (),
    "audio": (),
}


def refuse_unsupported(chat: ChatRequest) -> None:
    """Raises BadRequest."""
    for name, neutral in _NEUTRAL.items():
        _refuse(getattr(chat, name), neutral, name)
    for number, message in enumerate(chat.messages):
        _refuse_in_message(message, f"messages[{number}]")


def _refuse_in_message(message: Message, place: str) -> None:
    for name, neutral in _NEUTRAL_IN_MESSAGE.items():
        _refuse(getattr(message, name), neutral, f"{place}.{name}")
    for number, part in enumerate(message.content or ()):
        _refuse(part.type, ("text",), f"{place}.content[{number}].type")


def _refuse(value: Any, neutral: tuple[Any, ...], param: str) -> None:
    if value is None or value in neutral:
        return
    supported = ", ".join(json.dumps(each) for each in neutral)
    but = f"; supported: {supported}" if supported else ""
    raise BadRequest(
        f"This server does not support this value of '{param}' yet{but}.",
        param=param,
        code="unsupported_parameter",
    )
