"""A file of requests on this machine: its text, which gzip may have packed."""

import gzip
import io
import os
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from batch_api.errors import Unusable
from batch_api.schemas.bad_json import BAD_JSON
from batch_api.schemas.marks import BYTE_ORDER_MARK, GZIP

_PIECE_BYTES = 1024 * 1024
_LINE_BYTES = 16 * 1024 * 1024
"""No line of a request is longer, unless a server's settings say so."""


class InputUnusable(Unusable):
    pass


class _Named(msgspec.Struct):
    url: str


class _Unpacked(gzip.GzipFile):
    def fileno(self) -> int:
        """There is none: who asks wants to know the size, and the file's is the packed one."""
        raise io.UnsupportedOperation


@contextmanager
def opened(input: Path) -> Iterator[BinaryIO]:
    """Its text, unpacked as it is read. Raises InputUnusable, also within the block."""
    try:
        with input.open("rb") as file:
            is_packed = file.read(len(GZIP)) == GZIP
            file.seek(0)
            if not is_packed:
                yield file
                return
            with _Unpacked(fileobj=file) as unpacked:
                yield cast(BinaryIO, unpacked)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputUnusable(f"{input} is not whole, or not what gzip writes: {error}.") from error
    except OSError as error:
        raise InputUnusable(f"{input} can't be read: {error.strerror}.") from error


def pieces(input: Path) -> Generator[bytes]:
    """Of its text. Raises InputUnusable."""
    with opened(input) as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


def unpacked_name(input: Path) -> str:
    return input.name.removesuffix(".gz")


def check_whole(file: BinaryIO) -> None:
    """Before anything is sent: what is broken raises as `opened` says."""
    file.seek(0, os.SEEK_END)
    file.seek(0)


def first_url(input: Path) -> str:
    """The endpoint that the first line with one names: a batch has one, and its server tells what
    is wrong with the other lines. Raises InputUnusable.
    """
    if input.exists() and not input.is_file():
        raise InputUnusable(f"{input} is not a file, and has to be read more than once.")
    with opened(input) as file:
        return _first_url(file, input)


def _first_url(file: BinaryIO, input: Path) -> str:
    trouble: Exception | None = None
    is_array = False
    for number, line in enumerate(_lines(file)):
        text = line if number else line.removeprefix(BYTE_ORDER_MARK)
        try:
            if text.strip():
                return _url(text)
        except BAD_JSON as error:
            is_array = is_array or (trouble is None and text.lstrip().startswith(b"["))
            trouble = trouble or error
    if trouble is None:
        raise InputUnusable(f"There is no line in {input}.")
    if is_array:
        raise InputUnusable(
            f"{input} is a JSON array, and a batch wants JSONL: each request on a line of its own, "
            f"with nothing around them (`jq -c '.[]' ARRAY > LINES` writes it)."
        ) from trouble
    raise InputUnusable(
        f"No line of {input} is a request with a 'url'; the first: {trouble}."
    ) from trouble


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """In memory is never more than a request may have, whatever is in the file."""
    while line := file.readline(_LINE_BYTES):
        yield line


def _url(line: bytes) -> str:
    return msgspec.json.decode(line, type=_Named).url
