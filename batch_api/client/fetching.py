"""Answers and failed lines, from the server to where they were asked for."""

import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from batch_api.client.output import errors_beside, remove, replacing
from batch_api.client.patience import patiently
from batch_api.client.sentences import Missing
from batch_api.client.terminal import say
from batch_api.errors import Unusable
from batch_api.lifecycle import BatchStatus
from batch_api.schemas.bad_json import BAD_JSON

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
    """To the file, or to standard output; returns how many lines there were.

    Raises Unusable, also where there is nothing to fetch: then the file is as it was.
    """
    chunks = _chunks(remote, batch, errors=errors)
    if output is not None:
        with replacing(output) as writer:
            return sum(_write(chunk, writer) for chunk in chunks)
    lines = sum(_write(chunk, sys.stdout.buffer) for chunk in chunks)
    sys.stdout.buffer.flush()
    return lines


def fetch_both(remote: "Remote", batch: "Batch", output: Path) -> None:
    """The files of a batch that is over; what it has none of is not left from another one.

    Patient, for somebody has waited for this. Raises Unusable.
    """
    for target, id, errors in (
        (output, batch.output_file_id, False),
        (errors_beside(output), batch.error_file_id, True),
    ):
        if id is not None:
            fetching = partial(fetch, remote, batch, target, errors=errors)
            patiently(fetching, saying=lambda why: say(f"waiting: {why}"))
        elif remove(target):
            say(f"{target} is removed: {batch.id} has nothing for it.")


def _chunks(remote: "Remote", batch: "Batch", *, errors: bool) -> Iterable[bytes]:
    if BatchStatus(batch.status).is_final:
        id = batch.error_file_id if errors else batch.output_file_id
        if id is None:
            what = "failed lines" if errors else "answers"
            raise Unusable(f"{batch.id} {batch.status} and has no {what}.")
        return remote.content(id)
    return _so_far(remote, batch.id, errors=errors)


def _so_far(remote: "Remote", id: str, *, errors: bool) -> Iterator[bytes]:
    try:
        for line in remote.finished_lines(id):
            if _decode(line).has_failed == errors:
                yield line
    except Missing as error:
        raise Unusable(f"{remote.url} tells no results before the end.") from error
    except BAD_JSON as error:
        raise Unusable(f"{remote.url} sends a line that is not an answer: {error}.") from error


def _write(chunk: bytes, to: BinaryIO) -> int:
    to.write(chunk)
    return chunk.count(b"\n")
