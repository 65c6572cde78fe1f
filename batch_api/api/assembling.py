"""Puts the parts of an upload together into one file, a mebibyte at a time."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import aclosing

from batch_api.api.deps import AllParts
from batch_api.api.jsonl import HEAD_BYTES, check_first_line
from batch_api.errors import BadRequest
from batch_api.lifecycle import UploadStatus
from batch_api.schemas.ids import file_id
from batch_api.schemas.uploads import UploadCompletion
from batch_api.store import files, uploads
from batch_api.store.blobs import Blobs, Written
from batch_api.store.tables import UploadRow
from batch_api.store.trouble import StoreError


async def complete_upload(parts: AllParts, upload: UploadRow, wanted: UploadCompletion) -> bool:
    """False if somebody else completed or cancelled it meanwhile. Raises BadRequest."""
    # In one snapshot: an upload that has just been completed has no parts any more.
    async with parts.database.read() as session:
        row = await uploads.get(session, upload.id)
        sizes = await uploads.sizes(session, upload.number)
    if row is None or row.status != UploadStatus.PENDING:
        return False
    _check_parts(wanted.part_ids, sizes, upload.bytes)
    id = file_id()
    try:
        written = await _assemble(parts.blobs, wanted.part_ids, id, upload=upload, md5=wanted.md5)
    except FileNotFoundError:
        return False
    try:
        dropped = await _record(parts, upload, wanted, id, written)
    except StoreError:
        await parts.blobs.delete(id)
        raise
    for blob in [id] if dropped is None else dropped:
        await parts.blobs.delete(blob)
    return dropped is not None


async def _record(
    parts: AllParts, upload: UploadRow, wanted: UploadCompletion, id: str, written: Written
) -> list[str] | None:
    """The parts that the new file does without; None if the upload is no longer pending."""
    now = parts.clock.now()
    lifetime = upload.file_expires_after_seconds
    async with parts.database.write.begin() as session:
        if not await uploads.complete(
            session, upload.number, part_ids=wanted.part_ids, file_id=id, now=now
        ):
            return None
        files.add(
            session,
            id=id,
            filename=upload.filename,
            purpose=upload.purpose,
            bytes=written.bytes,
            sha256=written.sha256,
            created_at=int(now),
            expires_at=None if lifetime is None else int(now) + lifetime,
        )
        return list(await uploads.remove_parts(session, upload.number))


def _check_parts(wanted: Sequence[str], sizes: Mapping[str, int], declared_bytes: int) -> None:
    """Each part is there and stands once, and together they are as long as was declared.

    `sizes` are those of the upload's parts, by id. Raises BadRequest.
    """
    seen: set[str] = set()
    for number, id in enumerate(wanted):
        if id not in sizes or id in seen:
            fault = "is no part of this upload" if id not in sizes else "was given twice"
            raise BadRequest(
                f"Invalid value for 'part_ids[{number}]': '{id[:100]}' {fault}.",
                param=f"part_ids[{number}]",
                code="invalid_value",
            )
        seen.add(id)
    if (found := sum(sizes[id] for id in wanted)) != declared_bytes:
        raise BadRequest(
            f"The parts have {found} bytes, but {declared_bytes} were declared.",
            param="part_ids",
            code="invalid_value",
        )


async def _assemble(
    blobs: Blobs, part_ids: Sequence[str], id: str, *, upload: UploadRow, md5: str | None
) -> Written:
    """Publish the parts as the blob `id`.

    Raises BadRequest if the content is not what `upload` or `md5` say, and FileNotFoundError if
    a part goes away meanwhile.
    """
    head = bytearray()
    digest = hashlib.md5(usedforsecurity=False)
    async with blobs.receiving(id) as writer, aclosing(blobs.read(part_ids)) as chunks:
        writer.expect(upload.bytes)
        async for chunk in chunks:
            head += chunk[: HEAD_BYTES - len(head)]
            if md5 is not None:
                await asyncio.to_thread(digest.update, chunk)
            await writer.write(chunk)
        if md5 is not None and digest.hexdigest() != md5.lower():
            raise BadRequest(
                f"The content's MD5 is {digest.hexdigest()}.", param="md5", code="invalid_value"
            )
        if upload.purpose == "batch":
            check_first_line(bytes(head), is_whole=len(head) == writer.bytes)
        return await blobs.publish(id, writer)
