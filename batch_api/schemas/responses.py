"""The body of `POST /v1/responses`: what of it one stateless answer needs."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from batch_api.schemas.body import Body
from batch_api.schemas.messages import MAX_PARTS
from batch_api.schemas.sizes import Metadata
from batch_api.schemas.tools import MAX_TOOLS, Name

MAX_ITEMS = 4096

_SAID_IN = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}


class InputPart(Body):
    """`input_text` of a user, `output_text` and `refusal` of earlier answers."""

    type: str
    text: str | None = Field(None, validate_default=True)
    refusal: str | None = Field(None, validate_default=True)

    @field_validator("text", "refusal")
    @classmethod
    def _its_type_needs_it(cls, said: str | None, info: ValidationInfo) -> str | None:
        if said is None and info.field_name == _SAID_IN.get(info.data.get("type", "")):
            raise PydanticCustomError("missing", "Field required")
        return said


def _as_parts(content: Any) -> Any:
    return [{"type": "input_text", "text": content}] if isinstance(content, str) else content


_Parts = Annotated[list[InputPart], Field(max_length=MAX_PARTS, fail_fast=True)]
_Content = Annotated[_Parts | None, BeforeValidator(_as_parts)]

_NEEDED = {
    "message": ("role", "content"),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id", "output"),
}


class InputItem(Body):
    type: str = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = Field(
        None, validate_default=True
    )
    content: _Content = Field(None, validate_default=True)
    call_id: str | None = Field(None, validate_default=True)
    name: str | None = Field(None, validate_default=True)
    arguments: str | None = Field(None, validate_default=True)
    output: _Content = Field(None, validate_default=True)

    @field_validator("role", "content", "call_id", "name", "arguments", "output")
    @classmethod
    def _its_type_needs_it(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None and info.field_name in _NEEDED.get(info.data.get("type", ""), ()):
            raise PydanticCustomError("missing", "Field required")
        return value


class TextFormat(Body):
    """As in chats, but flat."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: Name | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool = False


class TextOptions(Body):
    format: TextFormat = TextFormat.model_validate({})
    verbosity: Literal["low", "medium", "high"] | None = None


class Reasoning(Body):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None


class ResponseTool(Body):
    """As in chats, but flat. What is not a function is for the worker to refuse."""

    type: str
    name: Name | None = Field(None, validate_default=True)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool = True

    @field_validator("name")
    @classmethod
    def _a_function_has_a_name(cls, name: str | None, info: ValidationInfo) -> str | None:
        if name is None and info.data.get("type") == "function":
            raise PydanticCustomError("missing", "Field required")
        return name


class ResponseRequest(Body):
    model_config = ConfigDict(extra="allow")

    model: str
    input: (
        str | Annotated[list[InputItem], Field(min_length=1, max_length=MAX_ITEMS, fail_fast=True)]
    )
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, ge=0, le=1)
    text: TextOptions = TextOptions.model_validate({})
    tools: list[ResponseTool] = Field([], max_length=MAX_TOOLS)
    tool_choice: str | dict[str, Any] = "auto"
    parallel_tool_calls: bool = True
    reasoning: Reasoning | None = None
    metadata: Metadata = Field({})
    include: list[str] = Field([], max_length=32)
    top_logprobs: int | None = Field(None, ge=0, le=20)
    truncation: Literal["auto", "disabled"] = "disabled"
    service_tier: str | None = None
    stream: bool = False

    @property
    def wants_logprobs(self) -> bool:
        return "message.output_text.logprobs" in self.include or bool(self.top_logprobs)
