"""`/v1/batches`."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from sqlalchemy.ext.asyncio import AsyncSession

from batch_api.api.batch_object import as_batch, find_batch
from batch_api.api.deps import Parts, TheCreation, json_body
from batch_api.api.documents import errors, links, takes
from batch_api.api.missing import no_such_cursor, no_such_file
from batch_api.api.rare_routes import RARE_ENDPOINTS, RareRoutes
from batch_api.api.webhooks import check_webhook
from batch_api.errors import BadRequest, Conflict
from batch_api.failpoints import failpoint
from batch_api.lifecycle import BatchStatus
from batch_api.schemas.batches import Batch, DeletedBatch, NewBatch
from batch_api.schemas.ids import batch_id, file_id
from batch_api.schemas.lists import Listing
from batch_api.settings import window_seconds
from batch_api.store import batches, files
from batch_api.store.pages import UnknownCursor
from batch_api.store.tables import BatchRow, FileRow

router = APIRouter(prefix="/v1/batches", tags=["batches"])


BY_ID = {"parameters": {"id": "$response.body#/id"}}


@router.post(
    "",
    operation_id="createBatch",
    openapi_extra=takes(NewBatch),
    responses=errors(404, body=True)
    | links(
        retrieveBatch=BY_ID,
        cancelBatch=BY_ID,
        retryBatch=BY_ID,
        deleteBatch=BY_ID,
        readResults=BY_ID,
        listLines=BY_ID,
    ),
)
async def create(
    new: Annotated[NewBatch, Depends(json_body(NewBatch))], parts: Parts, creation: TheCreation
) -> Batch:
    _check_window(new.completion_window, parts.settings.completion_windows)
    check_webhook(new.webhook_url, parts.settings)
    await _check_endpoint(new.endpoint, parts.rare_routes)
    now = parts.clock.now()
    async with parts.database.write.begin() as session:
        fresh = batch_id()
        id = await creation.claim(session, fresh, asked=new.model_dump(), now=now)
        if id == fresh:
            file = await _input(session, new.input_file_id, now=now)
            await parts.quotas.check_batches(session)
            row = _add(session, id, new, input_bytes=file.bytes, created_at=int(now))
        else:
            row = await find_batch(session, id)
    await failpoint("create_crash_after_store")
    parts.ring()
    return as_batch(row)


@router.get("", operation_id="listBatches", responses=errors(400))
async def listing(
    parts: Parts,
    after: str | None = None,
    limit: Annotated[int, Query(ge=0, le=100)] = 20,
) -> Listing[Batch]:
    try:
        async with parts.database.read() as session:
            page = await batches.page(session, after=after, limit=limit)
    except UnknownCursor as error:
        raise no_such_cursor(after) from error
    return Listing[Batch].of([as_batch(row) for row in page.rows], has_more=page.has_more)


@router.get("/{id}", operation_id="retrieveBatch", responses=errors(404))
async def one(id: str, parts: Parts) -> Batch:
    async with parts.database.read() as session:
        return as_batch(await find_batch(session, id))


@router.delete("/{id}", operation_id="deleteBatch", responses=errors(404, 409, 507))
async def delete(id: str, parts: Parts) -> DeletedBatch:
    """Only a batch that is over. Its files stay: they are files like any other."""
    async with parts.database.write.begin() as session:
        row = await find_batch(session, id)
        if not BatchStatus(row.status).is_final:
            raise Conflict(f"Cannot delete a batch with status '{row.status}'.")
        await batches.remove(session, row.number, now=parts.clock.now())
    return DeletedBatch(id=id)


@router.post("/{id}/cancel", operation_id="cancelBatch", responses=errors(404, 409, 507))
async def cancel(id: str, parts: Parts) -> Batch:
    async with parts.database.write.begin() as session:
        cancelled = await batches.cancel(session, id, now=parts.clock.now())
        row = await find_batch(session, id)
    if cancelled:
        await failpoint("cancel_event_lost")
        parts.ring()
    elif row.status not in (BatchStatus.CANCELLING, BatchStatus.CANCELLED):
        raise Conflict(f"Cannot cancel a batch with status '{row.status}'.")
    return as_batch(row)


def _check_window(window: str, allowed: Sequence[str]) -> None:
    if window not in allowed:
        supported = ", ".join(repr(one) for one in allowed)
        raise BadRequest(
            f"Invalid value for 'completion_window': {window[:100]!r}. "
            f"Supported values are: {supported}.",
            param="completion_window",
            code="invalid_value",
        )


async def _check_endpoint(endpoint: str, rare_routes: RareRoutes) -> None:
    if endpoint in RARE_ENDPOINTS and not await rare_routes.are_served(endpoint):
        raise BadRequest(
            f"No upstream serves '{endpoint}'.", param="endpoint", code="unsupported_value"
        )


async def _input(session: AsyncSession, id: str, *, now: float) -> FileRow:
    row = await files.get(session, id, now=now)
    if row is None:
        raise no_such_file(id, param="input_file_id")
    if row.purpose != "batch":
        raise BadRequest(
            f"Invalid value for 'input_file_id': its purpose is '{row.purpose}', not 'batch'.",
            param="input_file_id",
            code="invalid_value",
        )
    return row


def _add(
    session: AsyncSession, id: str, new: NewBatch, *, input_bytes: int, created_at: int
) -> BatchRow:
    expiry = new.output_expires_after
    return batches.add(
        session,
        id=id,
        endpoint=new.endpoint,
        completion_window=new.completion_window,
        input_file_id=new.input_file_id,
        input_bytes=input_bytes,
        output_file_id=file_id(),
        error_file_id=file_id(),
        created_at=created_at,
        expires_at=created_at + window_seconds(new.completion_window),
        metadata=new.metadata,
        output_expires_after_seconds=expiry.seconds if expiry else None,
        webhook_url=new.webhook_url,
    )
