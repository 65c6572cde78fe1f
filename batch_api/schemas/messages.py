"""The messages of a chat, as a request has them."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from batch_api.schemas.body import Body
from batch_api.schemas.tools import MAX_CALLS, FunctionCall, ToolCall

MAX_PARTS = 4096  # of one message


class ContentPart(Body):
    type: Literal["text", "image_url", "input_audio", "file", "refusal"]
    text: str | None = Field(None, validate_default=True)
    refusal: str | None = None

    @field_validator("text")
    @classmethod
    def _a_text_has_text(cls, text: str | None, info: ValidationInfo) -> str | None:
        if text is None and info.data.get("type") == "text":
            raise PydanticCustomError("missing", "Field required")
        return text


def _as_parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


_Parts = Annotated[list[ContentPart], Field(max_length=MAX_PARTS, fail_fast=True)]


class Message(Body):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    name: str | None = None
    tool_calls: list[ToolCall] = Field([], max_length=MAX_CALLS)
    function_call: FunctionCall | None = None
    refusal: str | None = None
    audio: Any = None
    content: Annotated[_Parts | None, BeforeValidator(_as_parts)] = Field(
        None, validate_default=True
    )
    tool_call_id: str | None = Field(None, validate_default=True)

    @field_validator("content")
    @classmethod
    def _only_a_call_needs_no_content(
        cls, content: list[ContentPart] | None, info: ValidationInfo
    ) -> list[ContentPart] | None:
        said = ("tool_calls", "function_call", "refusal")
        if content is None and not any(info.data.get(name) for name in said):
            raise PydanticCustomError("missing", "Field required")
        return content

    @field_validator("tool_call_id")
    @classmethod
    def _a_result_names_its_call(cls, id: str | None, info: ValidationInfo) -> str | None:
        if id is None and info.data.get("role") == "tool":
            raise PydanticCustomError("missing", "Field required")
        return id

    @property
    def text(self) -> str:
        """Several parts are joined by line ends, as in vLLM."""
        if self.content is None:
            return self.refusal or ""
        return "\n".join(part.text or part.refusal or "" for part in self.content)

    @property
    def calls(self) -> list[FunctionCall]:
        """Those of `tool_calls`, or the one of the deprecated `function_call`."""
        calls = [call.function for call in self.tool_calls if call.function is not None]
        return calls or ([self.function_call] if self.function_call else [])

    @property
    def call_ids(self) -> list[str]:
        """A deprecated call has no id: its result tells the function's name."""
        return [call.id for call in self.tool_calls] or [each.name for each in self.calls]
