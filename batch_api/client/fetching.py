"""Answers and failed lines, from the server to where they were asked for."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from batch_api.client.output import errors_beside, remove, replacing
from batch_api.client.remote import Missing
from batch_api.errors import Unusable
from batch_api.lifecycle import BatchStatus

if TYPE_CHECKING:
    from openai.types import Batch

    from batch_api.client.remote import Remote

_OK = 200


class _Response(msgspec.Struct):
    status_code: int


class _Line(msgspec.Struct):
    response: _Response | None = None

    @property
    def has_failed(self) -> bool:
        return self.response is None or self.response.status_code != _OK


_decode = msgspec.json.Decoder(_Line).decode


def fetch(remote: "Remote", batch: "Batch", output: Path | None, *, errors: bool) -> int:
    """To the file, or to standard output; returns how many lines there were."""
    chunks = _chunks(remote, batch, errors=errors)
    if output is not None:
        with replacing(output) as writer:
            return sum(_write(chunk, writer) for chunk in chunks)
    lines = sum(_write(chunk, sys.stdout.buffer) for chunk in chunks)
    sys.stdout.buffer.flush()
    return lines


def fetch_both(remote: "Remote", batch: "Batch", output: Path) -> None:
    """The files of a batch that is over; what it has none of is not left from another one."""
    for target, id, errors in (
        (output, batch.output_file_id, False),
        (errors_beside(output), batch.error_file_id, True),
    ):
        if id is None:
            remove(target)
        else:
            fetch(remote, batch, target, errors=errors)


def _chunks(remote: "Remote", batch: "Batch", *, errors: bool) -> Iterable[bytes]:
    if BatchStatus(batch.status).is_final:
        id = batch.error_file_id if errors else batch.output_file_id
        return remote.content(id) if id else ()
    return _so_far(remote, batch.id, errors=errors)


def _so_far(remote: "Remote", id: str, *, errors: bool) -> Iterator[bytes]:
    try:
        for line in remote.finished_lines(id):
            if _decode(line).has_failed == errors:
                yield line
    except Missing as error:
        raise Unusable(f"{remote.url} tells no results before the end.") from error


def _write(chunk: bytes, to: BinaryIO) -> int:
    to.write(chunk)
    return chunk.count(b"\n")
