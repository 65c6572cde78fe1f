"""`POST /v1/embeddings`: its body, with OpenAI's types and ranges, and its answer."""

from typing import Annotated, Any, Literal

from msgspec import Struct
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

MAX_INPUTS = 2048

_Text = Annotated[str, Field(min_length=1)]
_TokenIds = Annotated[
    list[Annotated[int, Field(ge=0)]], Field(min_length=1, fail_fast=True)
]  # as many as the model takes
_Texts = Annotated[list[_Text], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)]
_Tokenized = Annotated[list[_TokenIds], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)]


def _kind(given: Any) -> str:
    """The first element tells what an array is of."""
    if isinstance(given, str):
        return "one text"
    first = given[0] if given else ""
    if isinstance(first, list):
        return "token arrays"
    return "token array" if isinstance(first, int) else "texts"


def _of_a_kind(given: Any) -> Any:
    if not isinstance(given, str | list):
        expected = {"expected": "a string or an array"}
        raise PydanticCustomError("input_type", "Input should be {expected}", expected)
    return given


_Input = Annotated[
    Annotated[_Text, Tag("one text")]
    | Annotated[_Texts, Tag("texts")]
    | Annotated[_TokenIds, Tag("token array")]
    | Annotated[_Tokenized, Tag("token arrays")],
    Discriminator(_kind),
    BeforeValidator(_of_a_kind),
]


class EmbeddingsRequest(BaseModel):
    """Unknown keys, and `user`, are accepted and ignored."""

    model_config = ConfigDict(strict=True, frozen=True)

    model: str
    input: _Input
    dimensions: int | None = Field(None, ge=1)
    encoding_format: Literal["float", "base64"] = "float"

    @property
    def texts(self) -> list[str] | list[list[int]]:
        """The inputs, also where there is but one."""
        if isinstance(self.input, str):
            return [self.input]
        if isinstance(self.input[0], int):
            return [self.input]
        return self.input

    def place(self, index: int) -> str:
        """What the client calls one of the texts."""
        return f"input[{index}]" if self.texts is self.input else "input"


class Embedding(Struct, frozen=True):
    index: int
    embedding: list[float] | str
    object: str = "embedding"


class EmbeddingsUsage(Struct, frozen=True):
    """Exact: the ids that were fed, the special ones counted."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(Struct, frozen=True):
    data: list[Embedding]
    model: str
    usage: EmbeddingsUsage
    object: str = "list"
