"""Puts the parts of an upload together into one file, a mebibyte at a time."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import aclosing

from batch_api.api.jsonl import HEAD_BYTES, check_first_line
from batch_api.errors import BadRequest
from batch_api.store.blobs import Blobs, Written


def check_parts(wanted: Sequence[str], sizes: Mapping[str, int], declared_bytes: int) -> None:
    """Each part is there and stands once, and together they are as long as was declared.

    `sizes` are those of the upload's parts, by id. Raises BadRequest.
    """
    for number, id in enumerate(wanted):
        if id not in sizes or id in wanted[:number]:
            fault = "is no part of this upload" if id not in sizes else "was given twice"
            raise BadRequest(
                f"Invalid value for 'part_ids[{number}]': '{id[:100]}' {fault}.",
                param=f"part_ids[{number}]",
                code="invalid_value",
            )
    if (found := sum(sizes[id] for id in wanted)) != declared_bytes:
        raise BadRequest(
            f"The parts have {found} bytes, but {declared_bytes} were declared.",
            param="part_ids",
            code="invalid_value",
        )


async def assemble(
    blobs: Blobs, part_ids: Sequence[str], id: str, *, purpose: str, md5: str | None
) -> Written:
    """Publish the parts as the blob `id`.

    Raises BadRequest if the content is not what `purpose` or `md5` say, and FileNotFoundError if
    a part goes away meanwhile.
    """
    head = bytearray()
    digest = hashlib.md5(usedforsecurity=False)
    async with blobs.writing(id) as writer, aclosing(blobs.read(part_ids)) as chunks:
        async for chunk in chunks:
            head += chunk[: HEAD_BYTES - len(head)]
            if md5 is not None:
                await asyncio.to_thread(digest.update, chunk)
            await writer.write(chunk)
        if md5 is not None and digest.hexdigest() != md5.lower():
            raise BadRequest(
                f"The content's MD5 is {digest.hexdigest()}.", param="md5", code="invalid_value"
            )
        if purpose == "batch":
            check_first_line(bytes(head), is_whole=len(head) == writer.bytes)
        return await blobs.publish(id, writer)
