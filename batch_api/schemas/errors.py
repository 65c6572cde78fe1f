"""OpenAI's error envelope, as documentation; `batch_api.errors` makes it."""

from pydantic import BaseModel


class Error(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(BaseModel):
    error: Error
