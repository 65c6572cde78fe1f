"""`POST /v1/completions`: the body, and the answer whole or in chunks, which look alike."""

from typing import Annotated, Any

from msgspec import UNSET, Struct, UnsetType
from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from batch_api.schemas.sampling import SamplingBody
from batch_api.schemas.usage import Usage

MAX_PROMPTS = 2048
MAX_PROMPT_TOKENS = 2**20
MAX_BEST_OF = 20

_TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]
_Tokens = Annotated[
    list[_TokenId], Field(min_length=1, max_length=MAX_PROMPT_TOKENS, fail_fast=True)
]
_Prompts = Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)


def _kind(prompt: Any) -> str:
    """The first element tells what the others must be."""
    if not isinstance(prompt, list):
        return "text"
    first = type(prompt[0]) if prompt else str
    return {int: "tokens", list: "token lists", str: "texts"}.get(first, "nothing known")


def _of_a_kind(prompt: Any) -> Any:
    if not isinstance(prompt, str | list):
        raise _wrong("a string or an array")
    return prompt


def _unknown(_element: Any) -> Any:
    raise _wrong("a string, an integer or an array")


def _wrong(expected: str) -> PydanticCustomError:
    return PydanticCustomError("prompt_type", "Input should be {expected}", {"expected": expected})


_Unknown = Annotated[str, BeforeValidator(_unknown)]

_AnyPrompt = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[list[str], _Prompts, Tag("texts")]
    | Annotated[_Tokens, Tag("tokens")]
    | Annotated[list[_Tokens], _Prompts, Tag("token lists")]
    | Annotated[list[_Unknown], _Prompts, Tag("nothing known")],
    Discriminator(_kind),
    BeforeValidator(_of_a_kind),
]

Prompt = str | list[int]


class CompletionRequest(SamplingBody):
    prompt: _AnyPrompt = ""
    max_tokens: int = Field(16, ge=0)
    best_of: int | None = Field(None, ge=0, le=MAX_BEST_OF, validate_default=True)
    logprobs: int | None = Field(None, ge=0, le=5)
    echo: bool = False

    @field_validator("best_of")
    @classmethod
    def _no_fewer_than_n(cls, best_of: int | None, info: ValidationInfo) -> int | None:
        if not best_of:
            return None
        if best_of < info.data.get("n", 1):
            raise PydanticCustomError("invalid_value", "it must be at least 'n'")
        if best_of > info.data.get("n", 1) and info.data.get("stream"):
            raise PydanticCustomError("invalid_value", "a stream can't begin with the best")
        return best_of

    @property
    def prompts(self) -> list[Prompt]:
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [[token for token in self.prompt if isinstance(token, int)]]
        return [each for each in self.prompt if not isinstance(each, int)]

    @property
    def generated(self) -> int:
        """Answers to each prompt, of which `n` are told."""
        return self.best_of or self.n


class CompletionLogprobs(Struct, frozen=True):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(Struct, frozen=True, kw_only=True):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: str | None


class Completion(Struct, frozen=True, kw_only=True):
    id: str
    object: str = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | UnsetType | None = UNSET
    system_fingerprint: str
