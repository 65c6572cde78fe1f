"""`/v1/files`."""

import asyncio
import json
import os
from dataclasses import astuple
from pathlib import Path
from typing import Annotated, BinaryIO, Literal, get_args

from fastapi import APIRouter, Header, Query, Response
from sqlalchemy.ext.asyncio import AsyncSession

from batch_api.api.deps import AllParts, IncomingBody, Parts, TheCreation
from batch_api.api.documents import errors, links, takes_form
from batch_api.api.downloading import Download, etag, headers, span_of, whole
from batch_api.api.idempotency import Creation
from batch_api.api.missing import no_such_cursor, no_such_file
from batch_api.api.recording import record
from batch_api.api.uploading import Described, receive
from batch_api.schemas.files import DeletedFile, File, Purpose
from batch_api.schemas.ids import file_id
from batch_api.schemas.lists import Listing
from batch_api.store import files
from batch_api.store.blobs import Written
from batch_api.store.files import Listed
from batch_api.store.pages import UnknownCursor
from batch_api.store.tables import FileRow

router = APIRouter(prefix="/v1/files", tags=["files"])


_BY_ID = {"parameters": {"id": "$response.body#/id"}}
_EXAMPLE = json.dumps(
    {
        "custom_id": "row-1",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "demo", "messages": [{"role": "user", "content": "What is 2+2?"}]},
    }
)
_FORM = takes_form(
    ["purpose", "file"],
    properties={
        "purpose": {"enum": list(get_args(Purpose)), "examples": ["batch"]},
        "expires_after[anchor]": {"const": "created_at"},
        "expires_after[seconds]": {"type": "integer", "minimum": 3600, "maximum": 2_592_000},
        "file": {"type": "string", "format": "binary", "examples": [_EXAMPLE]},
    },
    dependentRequired={
        "expires_after[anchor]": ["expires_after[seconds]"],
        "expires_after[seconds]": ["expires_after[anchor]"],
    },
)
_BINARY = {
    "description": "The bytes.",
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
}


@router.post(
    "",
    operation_id="createFile",
    openapi_extra=_FORM,
    responses=errors(404, body=True)
    | links(
        retrieveFile=_BY_ID,
        downloadFile=_BY_ID,
        deleteFile=_BY_ID,
        createBatch={"requestBody": {"input_file_id": "$response.body#/id"}},
    ),
)
async def create(incoming: IncomingBody, parts: Parts, creation: TheCreation) -> File:
    """The bytes are on the disk before the row speaks of them, and the row before the answer."""
    id = file_id()
    async with (
        parts.quotas.receiving(parts.database, incoming) as body,
        parts.blobs.receiving(id) as writer,
    ):
        described = await receive(body, writer, parts.settings)
        written = await parts.blobs.publish(id, writer)
    return as_file(await record(parts.blobs, id, _add(parts, id, described, written, creation)))


@router.get("", operation_id="listFiles", responses=errors(400))
async def listing(
    parts: Parts,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Literal["asc", "desc"] = "desc",
    purpose: str | None = None,
) -> Listing[File]:
    now = parts.clock.now()
    try:
        async with parts.database.read() as session:
            page = await files.page(
                session, after=after, limit=limit, order=order, purpose=purpose, now=now
            )
    except UnknownCursor as error:
        raise no_such_cursor(after) from error
    return Listing[File].of([as_file(row) for row in page.rows], has_more=page.has_more)


@router.get("/{id}", operation_id="retrieveFile", responses=errors(404))
async def one(id: str, parts: Parts) -> File:
    return as_file(await _find(parts, id))


@router.get(
    "/{id}/content",
    operation_id="downloadFile",
    response_class=Response,
    responses=errors(404, 416) | {200: _BINARY, 206: _BINARY},
)
async def content(
    id: str,
    parts: Parts,
    wanted: Annotated[str | None, Header(alias="Range")] = None,
    if_range: Annotated[str | None, Header(alias="If-Range")] = None,
) -> Response:
    row = await _find(parts, id)
    span = span_of(wanted if if_range in (None, etag(row.sha256)) else None, row.bytes)
    opened = await asyncio.to_thread(_open, parts.blobs.path(row.id), span.start)
    if opened is None:
        raise no_such_file(id)
    return Download(opened, span, headers(row, span))


@router.head(
    "/{id}/content",
    operation_id="measureFile",
    response_class=Response,
    responses={404: {"description": "It is not there, or no longer."}},
)
async def content_head(id: str, parts: Parts) -> Response:
    row = await _find(parts, id)
    return Response(headers=headers(row, whole(row.bytes)))


@router.delete("/{id}", operation_id="deleteFile", responses=errors(404, 507))
async def delete(id: str, parts: Parts) -> DeletedFile:
    """A batch that still reads the file keeps its bytes, and drops them at its end."""
    async with parts.database.write.begin() as session:
        row = await files.get(session, id, now=parts.clock.now())
        is_removed = row is not None and await files.remove(session, id)
        is_held = await files.is_held(session, id)
    if not is_removed:
        raise no_such_file(id)
    if not is_held:
        await parts.blobs.delete(id)
    return DeletedFile(id=id)


def _open(path: Path, start: int) -> BinaryIO | None:
    """Opened before the answer starts: a delete can't cut it short then. None: deleted.

    Raises OSError if the disk can't read the first of what is wanted.
    """
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError:
        return None
    try:
        os.pread(file.fileno(), 1, start)
    except OSError:
        file.close()
        raise
    return file


async def _add(
    parts: AllParts, id: str, described: Described, written: Written, creation: Creation
) -> FileRow:
    """Or the file that the same call created before."""
    now = parts.clock.now()
    lifetime = described.lifetime_seconds
    async with parts.database.write.begin() as session:
        asked = [*astuple(described), written.sha256]
        claimed = await creation.claim(session, id, asked=asked, now=now)
        if claimed != id:
            return await _get(session, claimed, now)
        await parts.quotas.check_stored(session, written.bytes)
        return files.add(
            session,
            id=id,
            filename=described.filename,
            purpose=described.purpose,
            bytes=written.bytes,
            sha256=written.sha256,
            created_at=int(now),
            expires_at=None if lifetime is None else int(now) + lifetime,
        )


async def _find(parts: AllParts, id: str) -> FileRow:
    async with parts.database.read() as session:
        return await _get(session, id, parts.clock.now())


async def _get(session: AsyncSession, id: str, now: float) -> FileRow:
    row = await files.get(session, id, now=now)
    if row is None:
        raise no_such_file(id)
    return row


def as_file(row: FileRow | Listed) -> File:
    return File(
        id=row.id,
        bytes=row.bytes,
        created_at=row.created_at,
        expires_at=row.expires_at,
        filename=row.filename,
        purpose=row.purpose,
    )
