"""`/v1/uploads`: files that come in parts."""

from typing import Annotated

from fastapi import APIRouter, Depends
from sqlalchemy.ext.asyncio import AsyncSession

from batch_api.api.assembling import complete_upload
from batch_api.api.deps import AllParts, IncomingBody, Parts, TheCreation, json_body
from batch_api.api.documents import errors, links, takes, takes_form
from batch_api.api.files import as_file
from batch_api.api.forms import Form
from batch_api.api.idempotency import Creation
from batch_api.api.missing import no_such_upload
from batch_api.api.recording import record
from batch_api.api.uploading import lifetime_seconds
from batch_api.errors import BadRequest
from batch_api.lifecycle import UploadStatus
from batch_api.schemas.ids import part_id, upload_id
from batch_api.schemas.uploads import MOST_PARTS, NewUpload, Upload, UploadCompletion, UploadPart
from batch_api.settings import Settings
from batch_api.store import files, uploads
from batch_api.store.blobs import Written
from batch_api.store.tables import PartRow, UploadRow

router = APIRouter(prefix="/v1/uploads", tags=["uploads"])

_LIFETIME_SECONDS = 3600


_BY_ID = {"parameters": {"upload_id": "$response.body#/id"}}
_BY_UPLOAD_ID = {"parameters": {"upload_id": "$response.body#/upload_id"}}
_FORM = takes_form(["data"], properties={"data": {"type": "string", "format": "binary"}})


@router.post(
    "",
    operation_id="createUpload",
    openapi_extra=takes(NewUpload),
    responses=errors(body=True) | links(addUploadPart=_BY_ID, cancelUpload=_BY_ID),
)
async def create(
    new: Annotated[NewUpload, Depends(json_body(NewUpload))], parts: Parts, creation: TheCreation
) -> Upload:
    _check_declared(new, parts.settings)
    now = parts.clock.now()
    async with parts.database.write.begin() as session:
        fresh = upload_id()
        id = await creation.claim(session, fresh, asked=new.model_dump(), now=now)
        row = _add(session, id, new, int(now)) if id == fresh else await uploads.get(session, id)
    assert row is not None, "uploads are never deleted"
    return await _as_upload(parts, row)


@router.post(
    "/{upload_id}/parts",
    operation_id="addUploadPart",
    openapi_extra=_FORM,
    responses=errors(404, body=True)
    | links(
        completeUpload=_BY_UPLOAD_ID | {"requestBody": {"part_ids": ["$response.body#/id"]}},
        cancelUpload=_BY_UPLOAD_ID,
    ),
)
async def add_part(
    upload_id: str, incoming: IncomingBody, parts: Parts, creation: TheCreation
) -> UploadPart:
    """The bytes are on the disk before the row speaks of them, and the row before the answer."""
    _check_is_open(await _find(parts, upload_id), parts.clock.now())
    id = part_id()
    form = Form(file_part="data", fields=(), limit=lambda _: parts.settings.max_part_bytes)
    async with (
        parts.quotas.receiving(parts.database, incoming) as body,
        parts.blobs.receiving(id) as writer,
    ):
        await form.receive(body, writer)
        form.check_has_file()
        written = await parts.blobs.publish(id, writer)
    part = await record(parts.blobs, id, _add_part(parts, upload_id, id, written, creation))
    return UploadPart(id=part.id, created_at=part.created_at, upload_id=upload_id)


@router.post(
    "/{upload_id}/complete",
    operation_id="completeUpload",
    openapi_extra=takes(UploadCompletion),
    responses=errors(404, body=True),
)
async def complete(
    upload_id: str,
    wanted: Annotated[UploadCompletion, Depends(json_body(UploadCompletion))],
    parts: Parts,
) -> Upload:
    """Repeated with the same parts, also at the same time, it gives the same file."""
    row = await _find(parts, upload_id)
    if not _is_completed_with(row, wanted):
        _check_is_open(row, parts.clock.now())
        if not await complete_upload(parts, row, wanted):
            row = await _find(parts, upload_id)
            if not _is_completed_with(row, wanted):
                raise _not_pending(row)
    return await _as_upload(parts, await _find(parts, upload_id))


@router.post("/{upload_id}/cancel", operation_id="cancelUpload", responses=errors(400, 404, 507))
async def cancel(upload_id: str, parts: Parts) -> Upload:
    now = parts.clock.now()
    row = await _find(parts, upload_id)
    async with parts.database.write.begin() as session:
        cancelled = await uploads.cancel(session, row.number, now=now)
        dropped = await uploads.remove_parts(session, row.number) if cancelled else []
    for id in dropped:
        await parts.blobs.delete(id)
    row = await _find(parts, upload_id)
    if row.status != UploadStatus.CANCELLED:
        raise _not_pending(row)
    return await _as_upload(parts, row)


async def _find(parts: AllParts, id: str) -> UploadRow:
    async with parts.database.read() as session:
        row = await uploads.get(session, id)
    if row is None:
        raise no_such_upload(id)
    return row


def _check_declared(new: NewUpload, settings: Settings) -> None:
    is_batch = new.purpose == "batch"
    limit = settings.max_batch_file_bytes if is_batch else settings.max_upload_bytes
    if new.bytes > limit:
        raise BadRequest(
            f"Invalid 'bytes': integer above maximum value. Expected a value <= {limit}, "
            f"but got {new.bytes} instead.",
            param="bytes",
            code="integer_above_max_value",
        )


def _add(session: AsyncSession, id: str, new: NewUpload, created_at: int) -> UploadRow:
    wished = new.expires_after.seconds if new.expires_after else None
    return uploads.add(
        session,
        id=id,
        filename=new.filename,
        purpose=new.purpose,
        mime_type=new.mime_type,
        bytes=new.bytes,
        file_expires_after_seconds=lifetime_seconds(new.purpose, wished),
        created_at=created_at,
        expires_at=created_at + _LIFETIME_SECONDS,
    )


async def _add_part(
    parts: AllParts, upload_id: str, id: str, written: Written, creation: Creation
) -> PartRow:
    """Or the part that the same call added before."""
    now = parts.clock.now()
    async with parts.database.write.begin() as session:
        upload = await uploads.get(session, upload_id)
        assert upload is not None, "uploads are never deleted"
        _check_is_open(upload, now)
        claimed = await creation.claim(session, id, asked=written.sha256, now=now)
        if claimed != id:
            return await uploads.get_part(session, claimed)
        if await uploads.count_parts(session, upload.number) >= MOST_PARTS:
            raise BadRequest(f"An upload has at most {MOST_PARTS} parts.")
        await parts.quotas.check_stored(session, written.bytes)
        return uploads.add_part(
            session,
            id=id,
            upload_number=upload.number,
            bytes=written.bytes,
            created_at=int(now),
        )


def _is_completed_with(row: UploadRow, wanted: UploadCompletion) -> bool:
    return row.status == UploadStatus.COMPLETED and row.part_ids == wanted.part_ids


def _check_is_open(row: UploadRow, now: float) -> None:
    if row.status != UploadStatus.PENDING or row.expires_at <= now:
        raise _not_pending(row)


def _not_pending(row: UploadRow) -> BadRequest:
    """One that is still pending in its row has expired."""
    status = UploadStatus.EXPIRED if row.status == UploadStatus.PENDING else row.status
    return BadRequest(f"The upload has the status '{status}'.")


async def _as_upload(parts: AllParts, row: UploadRow) -> Upload:
    """With its file, if that is still there."""
    async with parts.database.read() as session:
        file = await files.get(session, row.file_id or "", now=parts.clock.now())
    return Upload(
        id=row.id,
        bytes=row.bytes,
        created_at=row.created_at,
        expires_at=row.expires_at,
        filename=row.filename,
        purpose=row.purpose,
        status=UploadStatus(row.status),
        file=as_file(file) if file else None,
    )
