"""A form with one file in it, written to disk as it comes in; memory stays flat whatever is sent.

What its fields mean is not known here.
"""

from collections.abc import Callable, Collection, Mapping

from batch_api.api.incoming import Incoming
from batch_api.api.jsonl import HEAD_BYTES
from batch_api.api.multipart import FormParser
from batch_api.errors import BadRequest, TooLarge
from batch_api.store.blobs import BlobWriter

_FIELD_BYTES = 1024
_BESIDE_THE_FILE_BYTES = 64 * 1024
"""Boundaries, headers and the other parts."""

Limit = Callable[[Mapping[str, str]], int]
"""How many bytes the file may have, as far as the fields that have come tell."""


class Form:
    """What has come in so far; of the file only its beginning, and what is not yet written."""

    def __init__(self, *, file_part: str, fields: Collection[str], limit: Limit) -> None:
        self._file_part = file_part
        self._fields = fields
        self._limit_of = limit
        self._limit = limit({})
        self._texts: dict[str, bytes] = {}
        self._part = ""
        self._body_bytes = 0
        """As announced, or as far as it has come."""
        self._received_bytes = 0
        self._pieces: list[bytes] = []
        self._filename: str | None = None
        self.file_bytes = 0
        self.head = bytearray()

    async def receive(self, incoming: Incoming, writer: BlobWriter) -> None:
        """Write the file to `writer`, in whatever order the parts come; unknown ones are ignored.

        Raises BadRequest and TooLarge, as early as that can be known.
        """
        self._body_bytes = incoming.announced_bytes
        self._check_size()
        writer.expect(self._body_bytes)
        parser = FormParser(incoming.content_type, self)
        async for chunk in incoming.chunks:
            self._count(len(chunk))
            parser.feed(chunk)
            for piece in self._take_pieces():
                await writer.write(piece)
        parser.close()

    @property
    def texts(self) -> dict[str, str]:
        return {name: raw.decode(errors="replace") for name, raw in self._texts.items()}

    @property
    def filename(self) -> str:
        """Raises BadRequest if there was no file."""
        self.check_has_file()
        assert self._filename is not None
        return self._filename

    def check_has_file(self) -> None:
        if self._filename is None:
            raise BadRequest(
                f"Missing required parameter: '{self._file_part}'.",
                param=self._file_part,
                code="missing_required_parameter",
            )

    def begin(self, name: str, filename: str | None) -> None:
        if name in self._texts or (name == self._file_part and self._filename is not None):
            raise BadRequest(f"'{name}' was given twice.", param=name, code="invalid_value")
        self._part = name
        if name == self._file_part:
            self._filename = filename if filename is not None else "upload"
        elif name in self._fields:
            self._texts[name] = b""

    def data(self, data: bytes) -> None:
        if self._part == self._file_part:
            self._add_to_file(data)
        elif self._part in self._fields:
            self._add_to_field(data)

    def end(self) -> None:
        if self._part in self._fields:
            self._limit = self._limit_of(self.texts)
            self._check_size()

    def _count(self, received: int) -> None:
        self._received_bytes += received
        self._body_bytes = max(self._body_bytes, self._received_bytes)
        self._check_size()

    def _take_pieces(self) -> list[bytes]:
        pieces, self._pieces = self._pieces, []
        return pieces

    def _add_to_file(self, data: bytes) -> None:
        if len(self.head) < HEAD_BYTES:
            self.head += data[: HEAD_BYTES - len(self.head)]
        self._pieces.append(data)
        self.file_bytes += len(data)
        self._check_size()

    def _add_to_field(self, data: bytes) -> None:
        self._texts[self._part] += data
        if len(self._texts[self._part]) > _FIELD_BYTES:
            raise BadRequest(
                f"'{self._part}' is too long.", param=self._part, code="string_above_max_length"
            )

    def _check_size(self) -> None:
        limit = self._limit
        if self.file_bytes > limit or self._body_bytes > limit + _BESIDE_THE_FILE_BYTES:
            raise TooLarge(f"File is too large: at most {limit} bytes are accepted.")
