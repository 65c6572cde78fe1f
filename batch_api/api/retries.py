"""`/v1/batches/{id}/retry`, ours beyond OpenAI: a new batch for the lines that have no answer."""

from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncSession

from batch_api.api.batch_object import as_batch, find_batch
from batch_api.api.batches import BY_ID
from batch_api.api.deps import AllParts, Parts, TheCreation
from batch_api.api.documents import errors, links
from batch_api.errors import Conflict
from batch_api.lifecycle import BatchStatus
from batch_api.schemas.batches import Batch
from batch_api.schemas.ids import batch_id, file_id
from batch_api.settings import window_seconds
from batch_api.store import batches, files
from batch_api.store.tables import BatchRow, FileRow

router = APIRouter(prefix="/v1/batches", tags=["batches"])


@router.post(
    "/{id}/retry",
    operation_id="retryBatch",
    responses=errors(400, 404, 409, 413, 507) | links(retrieveBatch=BY_ID, cancelBatch=BY_ID),
)
async def retry(id: str, parts: Parts, creation: TheCreation) -> Batch:
    """Run the lines again that failed, expired or were cancelled: in a new batch.

    It takes over the answers of the old one as they are, so that its files have every line.
    """
    now = parts.clock.now()
    async with parts.database.write.begin() as session:
        fresh = batch_id()
        claimed = await creation.claim(session, fresh, asked=id, now=now)
        if claimed == fresh:
            old = await find_batch(session, id)
            input, output = await _check(session, old, now=now)
            await _check_room(session, parts, 0 if output is None else output.bytes)
            await parts.quotas.check_batches(session)
            row = _continue(session, old, fresh, input_bytes=input.bytes, created_at=int(now))
        else:
            row = await find_batch(session, claimed)
    parts.ring()
    return as_batch(row)


async def _check(
    session: AsyncSession, old: BatchRow, *, now: float
) -> tuple[FileRow, FileRow | None]:
    """The input, and the output if there is one. Raises Conflict."""
    if old.status == BatchStatus.FAILED:
        raise Conflict(
            "Cannot retry a batch with status 'failed': its input is not valid. Upload it anew, "
            "corrected, and create a batch of that."
        )
    if not old.is_over:
        raise Conflict(f"Cannot retry a batch with status '{old.status}'.")
    if not old.total:
        raise Conflict("This batch has no lines: there is nothing to retry.")
    if old.completed == old.total:
        raise Conflict("Every line of this batch has been answered: there is nothing to retry.")
    output = await _file(session, old.output_file_id, now=now) if old.has_output_file else None
    return await _file(session, old.input_file_id, now=now), output


async def _check_room(session: AsyncSession, parts: AllParts, bytes: int) -> None:
    """For the old answers, once more. Raises QuotaExceeded and OSError."""
    await parts.quotas.check_stored(session, bytes)
    parts.blobs.room.expect(bytes)


async def _file(session: AsyncSession, id: str, *, now: float) -> FileRow:
    row = await files.get(session, id, now=now)
    if row is None:
        raise Conflict(f"Cannot retry this batch: its file '{id}' was deleted, or has expired.")
    return row


def _continue(
    session: AsyncSession, old: BatchRow, id: str, *, input_bytes: int, created_at: int
) -> BatchRow:
    return batches.add(
        session,
        id=id,
        endpoint=old.endpoint,
        completion_window=old.completion_window,
        input_file_id=old.input_file_id,
        input_bytes=input_bytes,
        output_file_id=file_id(),
        error_file_id=file_id(),
        created_at=created_at,
        expires_at=created_at + window_seconds(old.completion_window),
        metadata=old.labels,
        output_expires_after_seconds=old.output_expires_after_seconds,
        continues_id=old.id,
        webhook_url=old.webhook_url,
        earlier_output_file_id=old.output_file_id if old.has_output_file else None,
        earlier_completed=old.completed,
    )
