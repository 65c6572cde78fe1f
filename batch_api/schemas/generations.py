"""Prompts in, texts out: what `/v1/generate` and `/v1/batch-generate` take and give."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from batch_api.schemas.queries import MAX_QUERIES

_Prompt = Annotated[str, Field(min_length=1)]


class Options(BaseModel):
    """What they mean, and what they may be, is for the model to say."""

    model_config = ConfigDict(strict=True)

    model: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None

    @property
    def sampling(self) -> dict[str, Any]:
        names = {"max_tokens", "temperature", "top_p", "stop"}
        return self.model_dump(include=names, exclude_none=True)


class Generation(Options):
    prompt: _Prompt


class BatchGeneration(Options):
    prompts: list[_Prompt] = Field(min_length=1, max_length=MAX_QUERIES)


class Generated(BaseModel):
    text: str
    model: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    """None, and so the model: the upstream does not say."""


class NotGenerated(BaseModel):
    error: str


class AllGenerated(BaseModel):
    """In the order of the prompts."""

    results: list[Generated | NotGenerated]
