"""OpenAI's File, and what may be said about a new one."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Purpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
"""Of an upload; the files that a batch writes have `batch_output`."""


class ExpiresAfter(BaseModel):
    model_config = ConfigDict(strict=True)

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3600, le=2_592_000)]


class NewFile(BaseModel):
    """The text parts of an upload."""

    purpose: Purpose
    expires_after: ExpiresAfter | None = None


class File(BaseModel):
    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    status_details: None = None


class DeletedFile(BaseModel):
    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True
