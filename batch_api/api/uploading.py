"""Reads an upload as it comes in; memory stays flat whatever is sent."""

from dataclasses import dataclass
from typing import Any

import msgspec

from batch_api.api.deps import Incoming
from batch_api.api.multipart import FormParser
from batch_api.envelope import validate
from batch_api.errors import BadRequest, TooLarge
from batch_api.schemas.files import NewFile
from batch_api.settings import Settings
from batch_api.store.blobs import BlobWriter

_FIELDS = ("purpose", "expires_after[anchor]", "expires_after[seconds]")
_FIELD_BYTES = 1024
_HEAD_BYTES = 256 * 1024
_BESIDE_THE_FILE_BYTES = 64 * 1024
"""Boundaries, headers and the other parts."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Upload:
    filename: str
    purpose: str
    expires_after_seconds: int | None


async def receive(incoming: Incoming, writer: BlobWriter, settings: Settings) -> Upload:
    """Write the `file` part to `writer`, in whatever order the parts come.

    Raises BadRequest and TooLarge, as early as that can be known.
    """
    form = _Form(settings, body_bytes=incoming.announced_bytes)
    parser = FormParser(incoming.content_type, form)
    async for chunk in incoming.chunks:
        form.count(len(chunk))
        parser.feed(chunk)
        for piece in form.take_pieces():
            await writer.write(piece)
    parser.close()
    return form.finish()


class _Form:
    """What has come in so far; of the file only its beginning, and what is not yet written."""

    def __init__(self, settings: Settings, *, body_bytes: int) -> None:
        self._settings = settings
        self._body_bytes = body_bytes
        """As announced, or as far as it has come."""
        self._received_bytes = 0
        self._texts: dict[str, bytes] = {}
        self._part = ""
        self._filename: str | None = None
        self._file_bytes = 0
        self._head = bytearray()
        self._pieces: list[bytes] = []
        self._check_size()

    def count(self, received: int) -> None:
        self._received_bytes += received
        self._body_bytes = max(self._body_bytes, self._received_bytes)
        self._check_size()

    def take_pieces(self) -> list[bytes]:
        """Of the file, not yet written."""
        pieces, self._pieces = self._pieces, []
        return pieces

    def begin(self, name: str, filename: str | None) -> None:
        if name in self._texts or (name == "file" and self._filename is not None):
            raise BadRequest(f"'{name}' was given twice.", param=name, code="invalid_value")
        self._part = name
        if name == "file":
            self._filename = filename if filename is not None else "upload"
        elif name in _FIELDS:
            self._texts[name] = b""

    def data(self, data: bytes) -> None:
        if self._part == "file":
            self._add_to_file(data)
        elif self._part in _FIELDS:
            self._add_to_field(data)

    def end(self) -> None:
        if self._part == "purpose":
            validate(NewFile, {"purpose": self._text("purpose")})
            self._check_size()

    def finish(self) -> Upload:
        new = validate(NewFile, self._given())
        if self._filename is None:
            raise BadRequest(
                "Missing required parameter: 'file'.",
                param="file",
                code="missing_required_parameter",
            )
        if new.purpose == "batch":
            _check_jsonl(bytes(self._head), is_whole=len(self._head) == self._file_bytes)
        lifetime = new.expires_after.seconds if new.expires_after else None
        return Upload(self._filename, new.purpose, lifetime)

    def _add_to_file(self, data: bytes) -> None:
        if len(self._head) < _HEAD_BYTES:
            self._head += data[: _HEAD_BYTES - len(self._head)]
        self._pieces.append(data)
        self._file_bytes += len(data)
        self._check_size()

    def _add_to_field(self, data: bytes) -> None:
        self._texts[self._part] += data
        if len(self._texts[self._part]) > _FIELD_BYTES:
            raise BadRequest(
                f"'{self._part}' is too long.", param=self._part, code="string_above_max_length"
            )

    def _check_size(self) -> None:
        """The purpose decides; until it is known, the larger limit holds."""
        limits = (self._settings.max_file_bytes, self._settings.max_batch_file_bytes)
        match self._texts.get("purpose"):
            case b"batch":
                limit = limits[1]
            case None:
                limit = max(limits)
            case _:
                limit = limits[0]
        if self._file_bytes > limit or self._body_bytes > limit + _BESIDE_THE_FILE_BYTES:
            raise TooLarge(f"File is too large: at most {limit} bytes are accepted.")

    def _given(self) -> dict[str, Any]:
        expiry = {
            key: self._text(f"expires_after[{key}]")
            for key in ("anchor", "seconds")
            if f"expires_after[{key}]" in self._texts
        }
        purpose = {"purpose": self._text("purpose")} if "purpose" in self._texts else {}
        return purpose | ({"expires_after": expiry} if expiry else {})

    def _text(self, field: str) -> str:
        return self._texts[field].decode(errors="replace")


def _check_jsonl(head: bytes, *, is_whole: bool) -> None:
    """The first line that is not blank must be an object; the rest is checked by the batch.

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
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
