"""The body of `POST /v1/chat/completions`: OpenAI's types and ranges.

What changes nothing here (`user`, `store`, …) and unknown keys are accepted and ignored. What a
worker can't do yet is for the worker to refuse.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

MAX_MESSAGES = 4096
MAX_PARTS = 4096  # of one message
MAX_STOPS = 4
MAX_STOP_LENGTH = 1000
_GREEDY_BELOW = 1e-6  # a nucleus so small holds the likeliest token alone


class _Object(BaseModel):
    """A JSON object in which null means absent, as the SDK sends null for None."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {name: value for name, value in data.items() if value is not None}


class ContentPart(_Object):
    type: Literal["text", "image_url", "input_audio", "file", "refusal"]
    text: str | None = Field(None, validate_default=True)

    @field_validator("text")
    @classmethod
    def _a_text_has_text(cls, text: str | None, info: ValidationInfo) -> str | None:
        if text is None and info.data.get("type") == "text":
            raise PydanticCustomError("missing", "Field required")
        return text


def _as_parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


_Parts = Annotated[list[ContentPart], Field(max_length=MAX_PARTS, fail_fast=True)]


class Message(_Object):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    tool_calls: list[Any] = []
    function_call: Any = None
    audio: Any = None
    content: Annotated[_Parts | None, BeforeValidator(_as_parts)] = Field(
        None, validate_default=True
    )

    @field_validator("content")
    @classmethod
    def _only_a_call_needs_no_content(
        cls, content: list[ContentPart] | None, info: ValidationInfo
    ) -> list[ContentPart] | None:
        if content is None and not info.data.get("tool_calls"):
            raise PydanticCustomError("missing", "Field required")
        return content

    @property
    def text(self) -> str:
        """Several parts are joined by line ends, as in vLLM."""
        return "\n".join(part.text or "" for part in self.content or ())


class StreamOptions(_Object):
    include_usage: bool = False


def _as_list(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop


_Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]


class ChatRequest(_Object):
    model: str
    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, ge=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    stop: Annotated[list[_Stop], Field(max_length=MAX_STOPS), BeforeValidator(_as_list)] = []
    n: int = Field(1, ge=1, le=128)
    stream: bool = False
    stream_options: StreamOptions | None = None
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=20)
    frequency_penalty: float = Field(0, ge=-2, le=2)
    presence_penalty: float = Field(0, ge=-2, le=2)
    logit_bias: dict[str, float] = {}
    response_format: dict[str, Any] = {"type": "text"}
    modalities: list[str] = ["text"]
    tools: list[Any] = []
    tool_choice: Any = None
    functions: list[Any] = []
    function_call: Any = None
    audio: Any = None
    prediction: Any = None
    web_search_options: Any = None
    moderation: Any = None
    service_tier: str | None = None

    # Not OpenAI's, but other engines take them: who sends them means them.
    ignore_eos: bool = False
    min_tokens: int = 0
    stop_token_ids: list[int] = []
    top_k: int = 0
    min_p: float = 0
    repetition_penalty: float = 1
    chat_template: Any = None
    chat_template_kwargs: dict[str, Any] = {}
    structured_outputs: Any = None
    guided_json: Any = None
    guided_regex: Any = None
    guided_choice: Any = None
    guided_grammar: Any = None

    @field_validator("stream_options")
    @classmethod
    def _only_with_stream(
        cls, options: StreamOptions | None, info: ValidationInfo
    ) -> StreamOptions | None:
        if options is not None and not info.data.get("stream"):
            raise PydanticCustomError("invalid_value", "it is only allowed when 'stream' is true")
        return options

    @property
    def token_limit(self) -> int | None:
        """The newer name wins over the deprecated one."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0 or self.top_p < _GREEDY_BELOW

    @property
    def wants_usage_chunk(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage
