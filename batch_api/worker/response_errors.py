"""What is wrong with a response's chat, in the words of the request to `/v1/responses`."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from batch_api.errors import BadRequest

# The first that fits: a parameter of chats, and what asks for the same in responses. The chat's
# messages are other ones than the input's items, so that their numbers mean nothing here.
_WORDS = tuple(
    (re.compile(chats), responses)
    for chats, responses in (
        (r"messages\b.*", "input"),
        (r"response_format\.json_schema\.", "text.format."),
        (r"response_format\.json_schema\b", "text.format.schema"),
        (r"response_format\b", "text.format"),
        (r"tool_choice\.allowed_tools\.tools(\[\d+\])\.function\b", r"tool_choice.tools\1"),
        (r"tool_choice\.(?:function|allowed_tools)\.", "tool_choice."),
        (r"tool_choice\.function\b", "tool_choice.name"),
        (r"tool_choice\.allowed_tools\b", "tool_choice"),
        (r"tools(\[\d+\])\.function\b", r"tools\1"),
        (r"max_(?:completion_)?tokens\b", "max_output_tokens"),
        (r"reasoning_effort\b", "reasoning.effort"),
        (r"logprobs\b", "top_logprobs"),
    )
)
_QUOTED = re.compile(r"(?<=')[a-z_]+[a-z_.\[\]0-9]*(?=')")


@contextmanager
def told_as_response() -> Iterator[None]:
    """A BadRequest in here names the parameters of responses."""
    try:
        yield
    except BadRequest as error:
        message = _QUOTED.sub(lambda named: _in_responses(named[0]), error.message)
        param = _in_responses(error.param) if error.param is not None else None
        raise BadRequest(message, param=param, code=error.code) from error


def _in_responses(param: str) -> str:
    for chats, responses in _WORDS:
        if chats.match(param):
            return chats.sub(responses, param, count=1)
    return param
