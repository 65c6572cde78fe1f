"""The body of `POST /v1/chat/completions`: OpenAI's types and ranges.

What changes nothing here (`user`, `store`, …) and unknown keys are accepted and ignored. What a
worker can't do is for the worker to refuse.
"""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from batch_api.schemas.messages import Message
from batch_api.schemas.sampling import SamplingBody
from batch_api.schemas.sizes import Metadata, at_most
from batch_api.schemas.tools import MAX_TOOLS, Function, LegacyChoice, Tool, ToolChoice

MAX_MESSAGES = 4096
MAX_VARIABLES = 32  # of chat_template_kwargs
MAX_VARIABLE_LENGTH = 4096

_Variable = bool | int | float | Annotated[str, Field(max_length=MAX_VARIABLE_LENGTH)]
_VariableName = Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]{0,63}$")]
_Variables = Annotated[dict[_VariableName, _Variable], at_most(MAX_VARIABLES)]


class ChatRequest(SamplingBody):
    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: list[Tool] = Field([], max_length=MAX_TOOLS)
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool = True
    functions: list[Function] = Field([], max_length=MAX_TOOLS)
    function_call: LegacyChoice | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = (
        None
    )
    chat_template_kwargs: _Variables = Field({})
    service_tier: str | None = None
    metadata: Metadata | None = None

    @field_validator("top_logprobs")
    @classmethod
    def _only_with_logprobs(cls, top: int | None, info: ValidationInfo) -> int | None:
        if top and info.data.get("logprobs") is False:
            raise PydanticCustomError("invalid_value", "it is only allowed when 'logprobs' is true")
        return top

    @property
    def token_limit(self) -> int | None:
        """The newer name wins over the deprecated one."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def offered_functions(self) -> list[Function]:
        """Those of `tools`, or of the deprecated `functions`."""
        offered = [tool.function for tool in self.tools if tool.function is not None]
        return offered or self.functions

    @property
    def is_legacy(self) -> bool:
        """Whether calls are to be told by the deprecated `function_call`."""
        return bool(self.functions) and not self.tools

    @property
    def choice_of_tool(self) -> ToolChoice | None:
        return self.tool_choice or self.function_call
