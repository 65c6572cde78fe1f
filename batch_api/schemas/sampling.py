"""What chats and completions may both ask of the tokens that are generated.

Unknown keys are kept aside (`model_extra`), for the worker to refuse the ones that mean something.
"""

from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from batch_api.schemas.body import Body
from batch_api.schemas.response_format import ResponseFormat
from batch_api.schemas.sizes import at_most

MAX_CHOICES = 128
MAX_STOPS = 4
MAX_STOP_LENGTH = 1000
MAX_STOP_TOKENS = 64
MAX_BIASES = 1024
MAX_OPTIONS = 1024  # of guided_choice
MAX_REGEX_LENGTH = 4096
_GREEDY_BELOW = 1e-6  # a nucleus so small holds the likeliest token alone


class StreamOptions(Body):
    include_usage: bool = False


class StructuredOutputs(Body):
    """vLLM's own way to ask for a grammar; one of them at most."""

    model_config = ConfigDict(extra="allow")

    json_: Any = Field(None, alias="json")
    json_object: bool = False
    regex: str | None = Field(None, max_length=MAX_REGEX_LENGTH)
    choice: list[str] = Field([], max_length=MAX_OPTIONS)


def _as_list(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop


_Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
_Stops = Annotated[list[_Stop], Field(max_length=MAX_STOPS), BeforeValidator(_as_list)]
_TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]
_TokenIdText = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
_Bias = Annotated[float, Field(ge=-100, le=100)]


class SamplingBody(Body):
    model_config = ConfigDict(extra="allow")

    model: str
    max_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, ge=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    stop: _Stops = Field([])
    n: int = Field(1, ge=1, le=MAX_CHOICES)
    stream: bool = False
    stream_options: StreamOptions | None = None
    frequency_penalty: float = Field(0, ge=-2, le=2)
    presence_penalty: float = Field(0, ge=-2, le=2)
    logit_bias: Annotated[dict[_TokenIdText, _Bias], at_most(MAX_BIASES)] = Field({})
    response_format: ResponseFormat | None = None  # OpenAI's chats have it, vLLM's completions too

    # Not OpenAI's, but other engines take them: who sends them means them.
    ignore_eos: bool = False
    min_tokens: int = Field(0, ge=0)
    stop_token_ids: list[_TokenId] = Field([], max_length=MAX_STOP_TOKENS)
    top_k: int = Field(0, ge=-1)
    min_p: float = Field(0, ge=0, le=1)
    repetition_penalty: float = Field(1, ge=0.01, le=100)
    structured_outputs: StructuredOutputs | None = None
    guided_json: Any = None
    guided_regex: str | None = Field(None, max_length=MAX_REGEX_LENGTH)
    guided_choice: list[str] = Field([], max_length=MAX_OPTIONS)

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
        return self.max_tokens

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0 or self.top_p < _GREEDY_BELOW

    @property
    def wants_usage_chunk(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage
