"""From messages to the ids that are fed: the model's chat template, then its tokenizer."""

import asyncio
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from batch_api.errors import BadRequest
from batch_api.schemas.chat import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# About a millisecond of tokenizing, and of rendering: more would hold up the event loop.
_LONG_CHARACTERS = 4000
_MANY_PARTS = 100  # a message counts as one more
_SHOWN_CHARACTERS = 300


async def prompt_ids(tokenizer: "PreTrainedTokenizerBase", messages: list[Message]) -> list[int]:
    """Raises BadRequest if the messages can't be put to this model."""
    if _is_long(messages):
        return await asyncio.to_thread(_encode, tokenizer, messages)
    return _encode(tokenizer, messages)


def _is_long(messages: list[Message]) -> bool:
    if sum(1 + len(message.content or ()) for message in messages) > _MANY_PARTS:
        return True
    return sum(len(message.text) for message in messages) > _LONG_CHARACTERS


def _encode(tokenizer: "PreTrainedTokenizerBase", messages: list[Message]) -> list[int]:
    ids: list[int] = tokenizer.encode(_render(tokenizer, messages), add_special_tokens=False)
    if not ids:
        raise BadRequest("The messages make an empty prompt.", param="messages")
    return ids


def _render(tokenizer: "PreTrainedTokenizerBase", messages: list[Message]) -> str:
    if not tokenizer.chat_template:
        raise BadRequest(
            "This model has no chat template, so it can't be chatted with.", param="model"
        )
    try:
        text = tokenizer.apply_chat_template(
            [_for_template(message) for message in messages],
            tokenize=False,
            add_generation_prompt=True,
        )
    except (TemplateError, TypeError, ValueError) as error:  # as its author thought fit
        reason = " ".join(str(error).split())[:_SHOWN_CHARACTERS]
        message = f"The model's chat template refuses the messages: {reason}"
        raise BadRequest(message, param="messages", code="invalid_value") from error
    assert isinstance(text, str)
    return text


def _for_template(message: Message) -> dict[str, str]:
    """Templates know no developer; that is the newer word for the system's role."""
    role = "system" if message.role == "developer" else message.role
    return {"role": role, "content": message.text}
