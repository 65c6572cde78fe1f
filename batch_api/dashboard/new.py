"""`/new`: a batch of a file that is uploaded here, or has been before."""

import asyncio
from pathlib import Path
from typing import Annotated, get_args

import msgspec
from fastapi import Query, Response

from batch_api.api.missing import no_such_file
from batch_api.dashboard.pages import Viewing, pages
from batch_api.schemas.bad_json import BAD_JSON
from batch_api.schemas.batches import Endpoint
from batch_api.schemas.marks import BYTE_ORDER_MARK
from batch_api.store import files

router = pages()

_HEAD_BYTES = 256 * 1024


class _Line(msgspec.Struct):
    url: str


_decode = msgspec.json.Decoder(_Line).decode


@router.get("/new")
async def new(view: Viewing, file: Annotated[str | None, Query(max_length=100)] = None) -> Response:
    chosen, endpoint = None, None
    if file is not None:
        async with view.parts.database.read() as session:
            chosen = await files.get(session, file, now=view.parts.clock.now())
        if chosen is None:
            raise no_such_file(file)
        endpoint = await asyncio.to_thread(_first_url, view.parts.blobs.path(file))
    return view.page(
        "new.html",
        file=chosen,
        endpoint=endpoint,
        endpoints=get_args(Endpoint),
        windows=view.parts.settings.completion_windows,
    )


def _first_url(path: Path) -> str | None:
    """Where the first line goes to, if it says so. Blocks."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES).removeprefix(BYTE_ORDER_MARK)
        return _decode(head.lstrip().partition(b"\n")[0]).url
    except (FileNotFoundError, *BAD_JSON):
        return None
