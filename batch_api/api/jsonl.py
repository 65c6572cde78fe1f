"""A first look at a batch's input, when its file is uploaded; the rest is checked by the batch."""

import msgspec

from batch_api.errors import BadRequest
from batch_api.schemas.bad_json import BAD_JSON

HEAD_BYTES = 256 * 1024
"""How much of the beginning is looked at."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def check_first_line(head: bytes, *, is_whole: bool) -> None:
    """The first line that is not blank must be an object. Raises BadRequest.

    Of a line longer than `head` only its beginning can be judged.
    """
    *ended, last = head.removeprefix(_BYTE_ORDER_MARK).split(b"\n")
    first = next((line for line in ended if line.strip()), None)
    if first is None and not is_whole:
        is_jsonl = last.lstrip()[:1] in (b"", b"{")
    else:
        is_jsonl = _is_object(last if first is None else first)
    if not is_jsonl:
        raise BadRequest("Invalid file format for Batch API. Must be .jsonl")


def _is_object(line: bytes) -> bool:
    try:
        msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    except BAD_JSON:
        return False
    return True
