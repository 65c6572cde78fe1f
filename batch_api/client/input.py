"""A file of requests on this machine."""

from pathlib import Path
from typing import BinaryIO

import msgspec

from batch_api.errors import Unusable
from batch_api.schemas.bad_json import BAD_JSON
from batch_api.schemas.marks import BYTE_ORDER_MARK, GZIP


class InputUnusable(Unusable):
    pass


class _Named(msgspec.Struct):
    url: str


def first_url(input: Path) -> str:
    """The endpoint that the first line with one names: a batch has one, and its server tells what
    is wrong with the other lines. Raises InputUnusable.
    """
    if input.exists() and not input.is_file():
        raise InputUnusable(f"{input} is not a file, and has to be read more than once.")
    try:
        with input.open("rb") as file:
            return _first_url(file, input)
    except OSError as error:
        raise InputUnusable(f"{input} can't be read: {error.strerror}.") from error


def _first_url(file: BinaryIO, input: Path) -> str:
    trouble: Exception | None = None
    for number, line in enumerate(file):
        if not number and line.startswith(GZIP):
            raise InputUnusable(f"{input} is compressed; unpack it first.")
        text = line if number else line.removeprefix(BYTE_ORDER_MARK)
        try:
            if text.strip():
                return _url(text)
        except BAD_JSON as error:
            trouble = trouble or error
    if trouble is None:
        raise InputUnusable(f"There is no line in {input}.")
    raise InputUnusable(
        f"No line of {input} is a request with a 'url'; the first: {trouble}."
    ) from trouble


def _url(line: bytes) -> str:
    return msgspec.json.decode(line, type=_Named).url
