"""A file of requests on this machine: its text, which gzip may have packed."""

import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase, UnsupportedOperation
from pathlib import Path

import msgspec

from batch_api.errors import Unusable
from batch_api.schemas.bad_json import BAD_JSON
from batch_api.schemas.marks import BYTE_ORDER_MARK, GZIP

_LINE_BYTES = 16 * 1024 * 1024
"""Of what is packed no more is held at once, whatever is in it."""


class InputUnusable(Unusable):
    pass


class _Named(msgspec.Struct):
    url: str


class _Unpacked(gzip.GzipFile):
    def fileno(self) -> int:
        """There is none: who asks wants to know the size, and the file's is the packed one."""
        raise UnsupportedOperation


@contextmanager
def opened(input: Path) -> Iterator[BufferedIOBase]:
    """Its text, unpacked as it is read. Raises InputUnusable, also within the block."""
    if input.exists() and not input.is_file():
        raise InputUnusable(f"{input} is not a file, and has to be read more than once.")
    try:
        with input.open("rb") as file:
            is_packed = file.read(len(GZIP)) == GZIP
            file.seek(0)
            if not is_packed:
                yield file
                return
            with _Unpacked(fileobj=file) as unpacked:
                yield unpacked
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputUnusable(f"{input} is not whole, or not what gzip writes: {error}.") from error
    except OSError as error:
        raise InputUnusable(f"{input} can't be read: {error.strerror}.") from error


def unpacked_name(input: Path) -> str:
    return input.name.removesuffix(".gz")


def check_whole(file: BufferedIOBase) -> None:
    """Before anything is sent: what is broken raises as `opened` says."""
    file.seek(0, os.SEEK_END)
    file.seek(0)


def first_url(input: Path) -> str:
    """The endpoint that the first line with one names: a batch has one, and its server tells what
    is wrong with the other lines. Raises InputUnusable.
    """
    with opened(input) as file:
        return _first_url(file, input)


def _first_url(file: BufferedIOBase, input: Path) -> str:
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


def _lines(file: BufferedIOBase) -> Iterator[bytes]:
    most = _LINE_BYTES if isinstance(file, _Unpacked) else -1
    while line := file.readline(most):
        yield line


def _url(line: bytes) -> str:
    return msgspec.json.decode(line, type=_Named).url
