"""A batch: found by its id, and told as OpenAI tells it."""

from sqlalchemy.ext.asyncio import AsyncSession

from batch_api.api.missing import no_such_batch
from batch_api.lifecycle import BatchStatus
from batch_api.schemas.batches import (
    Batch,
    BatchErrors,
    BatchUsage,
    InputTokensDetails,
    OutputTokensDetails,
    RequestCounts,
)
from batch_api.store import batches
from batch_api.store.tables import BatchRow


async def find_batch(session: AsyncSession, id: str) -> BatchRow:
    """Raises NotFound."""
    row = await batches.get(session, id)
    if row is None:
        raise no_such_batch(id)
    return row


def as_batch(row: BatchRow) -> Batch:
    status = BatchStatus(row.status)
    return Batch(
        id=row.id,
        endpoint=row.endpoint,
        model=row.model,
        errors=BatchErrors(data=row.errors) if row.errors else None,
        input_file_id=row.input_file_id,
        completion_window=row.completion_window,
        status=status,
        output_file_id=row.output_file_id if row.has_output_file else None,
        error_file_id=row.error_file_id if row.has_error_file else None,
        created_at=row.created_at,
        in_progress_at=row.in_progress_at,
        expires_at=row.expires_at,
        finalizing_at=row.finalizing_at,
        completed_at=row.completed_at,
        failed_at=row.failed_at,
        expired_at=row.expired_at,
        cancelling_at=row.cancelling_at,
        cancelled_at=row.cancelled_at,
        request_counts=RequestCounts(
            total=row.total or 0, completed=row.completed, failed=row.failed
        ),
        usage=_usage(row),
        metadata=row.labels,
        continues=row.continues_id,
    )


def _usage(row: BatchRow) -> BatchUsage:
    return BatchUsage(
        input_tokens=row.input_tokens,
        input_tokens_details=InputTokensDetails(cached_tokens=row.cached_tokens),
        output_tokens=row.output_tokens,
        output_tokens_details=OutputTokensDetails(reasoning_tokens=row.reasoning_tokens),
        total_tokens=row.input_tokens + row.output_tokens,
    )
