"""OpenAI's Upload and its parts, and what they are made of."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from batch_api.lifecycle import UploadStatus
from batch_api.schemas.files import ExpiresAfter, File, Purpose

MOST_PARTS = 10_000


class NewUpload(BaseModel):
    model_config = ConfigDict(strict=True)

    bytes: Annotated[int, Field(ge=1)]
    filename: str
    mime_type: str
    purpose: Purpose
    expires_after: ExpiresAfter | None = None


class UploadCompletion(BaseModel):
    """Which parts make the file, in order."""

    model_config = ConfigDict(strict=True)

    part_ids: Annotated[list[str], Field(min_length=1, max_length=MOST_PARTS)]
    md5: str | None = None
    """Of the whole content, in hexadecimal."""


class UploadPart(BaseModel):
    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str


class Upload(BaseModel):
    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: UploadStatus
    file: File | None
