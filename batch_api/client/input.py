"""A file of requests on this machine."""

from pathlib import Path

import msgspec

from batch_api.errors import Unusable
from batch_api.schemas.bad_json import BAD_JSON

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class InputUnusable(Unusable):
    pass


class _FirstLine(msgspec.Struct):
    url: str


def first_url(input: Path) -> str:
    """The endpoint that the first request names: a batch has one. Raises InputUnusable."""
    if input.exists() and not input.is_file():
        raise InputUnusable(f"{input} is not a file, and has to be read more than once.")
    try:
        with input.open("rb") as file:
            first = next((line for line in file if line.strip()), b"")
    except OSError as error:
        raise InputUnusable(f"{input} can't be read: {error.strerror}.") from error
    try:
        return msgspec.json.decode(first.removeprefix(_BYTE_ORDER_MARK), type=_FirstLine).url
    except BAD_JSON as error:
        raise InputUnusable(
            f"The first line of {input} is not a request with a 'url': {error}."
        ) from error
