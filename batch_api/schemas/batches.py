"""OpenAI's Batch, and what a new one is made of."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from batch_api.lifecycle import BatchStatus, DeliveryState, RequestState
from batch_api.schemas.error_lines import LineError
from batch_api.schemas.files import ExpiresAfter
from batch_api.schemas.sizes import Metadata

Endpoint = Literal[
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/moderations",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/videos",
]
"""All that the SDK knows."""


class NewBatch(BaseModel):
    """Keys that we don't know are ignored, and an explicit null is no value."""

    model_config = ConfigDict(strict=True)

    input_file_id: str
    endpoint: Endpoint
    completion_window: str
    """One of those that the settings allow."""
    metadata: Metadata | None = None
    output_expires_after: ExpiresAfter | None = None
    webhook_url: Annotated[str, Field(max_length=2048)] | None = None
    """Ours: who is told when it is over; to a host that the settings name."""


class DeletedBatch(BaseModel):
    id: str
    object: Literal["batch"] = "batch"
    deleted: Literal[True] = True


class RequestCounts(BaseModel):
    total: int
    completed: int
    failed: int


class InputTokensDetails(BaseModel):
    cached_tokens: int


class OutputTokensDetails(BaseModel):
    reasoning_tokens: int


class BatchUsage(BaseModel):
    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class BatchError(BaseModel):
    code: str | None
    message: str | None
    param: str | None
    line: int | None


class BatchErrors(BaseModel):
    object: Literal["list"] = "list"
    data: list[BatchError]


class Batch(BaseModel):
    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: BatchStatus
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int | None
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: BatchUsage
    metadata: dict[str, Any] | None
    continues: str | None
    """Ours: the batch whose answers it took over, and whose other lines it ran again."""


class BatchLine(BaseModel):
    """Ours: one line of a batch, and what has become of it."""

    object: Literal["batch.line"] = "batch.line"
    line: int
    custom_id: str
    state: RequestState
    attempts: int
    """That an upstream took, or may have taken. A line that is leased has one that is yet to end;
    one that the server refused, or could not read, has one too."""
    failures: int
    """Attempts that failed for the request's own sake."""
    seconds: float | None
    """How long the attempt took that ended it, from its sending to the whole answer."""
    error: LineError | None


class BatchLines(BaseModel):
    """To go on: `after` is the number of the last line of the page."""

    object: Literal["list"] = "list"
    data: list[BatchLine]
    has_more: bool


class BatchWebhook(BaseModel):
    """Ours: how the end of a batch is told to one receiver."""

    object: Literal["batch.webhook"] = "batch.webhook"
    receiver: str
    """Where its URL leads, without path and query: those may be secrets."""
    state: DeliveryState
    attempts: int
    failure: str | None
    """Of the last attempt, in words."""
    next_at: int | None
    """When it is tried again; null if it is over."""
    over_at: int | None
    """When it was delivered or given up."""


class BatchWebhooks(BaseModel):
    object: Literal["list"] = "list"
    data: list[BatchWebhook]
