"""A first look at a batch's input, when its file is uploaded; the rest is checked by the batch."""

import msgspec

from batch_api.errors import BadRequest
from batch_api.schemas.bad_json import BAD_JSON
from batch_api.schemas.marks import BYTE_ORDER_MARK, GZIP

HEAD_BYTES = 256 * 1024
"""How much of the beginning is looked at."""


def check_first_line(head: bytes, *, is_whole: bool) -> None:
    """The first line that is not blank must be an object. Raises BadRequest.

    Of a line longer than `head` only its beginning can be judged.
    """
    problem = _problem(head, is_whole=is_whole)
    if problem is not None:
        raise BadRequest(f"Invalid file format for Batch API. Must be .jsonl, but {problem}.")


def _problem(head: bytes, *, is_whole: bool) -> str | None:
    if head.startswith(GZIP):
        return "the file is compressed; unpack it first"
    *ended, last = head.removeprefix(BYTE_ORDER_MARK).split(b"\n")
    lines = [*ended, last] if is_whole else ended
    for number, line in enumerate(lines, start=1):
        if line.strip():
            return None if _is_object(line) else f"line {number} is not a JSON object"
    if is_whole:
        return "there is no line in the file"
    begins_as_object = last.lstrip()[:1] in (b"", b"{")
    return None if begins_as_object else f"line {len(ended) + 1} is not a JSON object"


def _is_object(line: bytes) -> bool:
    try:
        msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    except BAD_JSON:
        return False
    return True
