"""multipart/form-data, parsed as it comes in. What the parts mean is not known here."""

from typing import Protocol

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from batch_api.errors import BadRequest

_MOST_PARTS = 100
_MOST_HEADERS = 16
_HEADER_BYTES = 32 * 1024


class Receiver(Protocol):
    def begin(self, name: str, filename: str | None) -> None: ...

    def data(self, data: bytes) -> None: ...

    def end(self) -> None: ...


class FormParser:
    """Tells its receiver of each part in turn; holds no more than one header."""

    def __init__(self, content_type: str, receiver: Receiver) -> None:
        """Raises BadRequest if `content_type` is not that of a form."""
        self._receiver = receiver
        self._parser = self._make_parser(content_type)
        self._parts = 0
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._disposition = b""
        self._has_begun = False
        self._is_over = False

    def feed(self, chunk: bytes) -> None:
        """Raises BadRequest, and whatever the receiver raises."""
        if not self._has_begun:
            # Else the parser would skip more than these, as far as the chunk goes.
            chunk = chunk.lstrip(b"\r\n")
            self._has_begun = bool(chunk)
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            # Not in the parser's words: they tell of places in a chunk, which nobody knows.
            raise BadRequest("The multipart body can't be parsed.") from error

    def close(self) -> None:
        if not self._is_over:
            raise BadRequest("The multipart body ends before its closing boundary.")

    def _make_parser(self, content_type: str) -> MultipartParser:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise BadRequest("The content type must be multipart/form-data, with a boundary.")
        try:
            return MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part_begin,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_part_end": self._receiver.end,
                    "on_end": self._on_end,
                },
                max_header_count=_MOST_HEADERS,
                max_header_size=_HEADER_BYTES,
            )
        except FormParserError as error:
            raise BadRequest(f"The multipart boundary can't be used: {error}.") from error

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise BadRequest(f"The multipart body has more than {_MOST_PARTS} parts.")
        self._disposition = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise BadRequest("A part of the multipart body has no name.")
        filename = options.get(b"filename")
        self._receiver.begin(_text(options[b"name"]), None if filename is None else _text(filename))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._receiver.data(data[start:end])

    def _on_end(self) -> None:
        self._is_over = True


def _text(raw: bytes) -> str:
    """Clients send UTF-8 as it is; what is none is kept as well as it can be."""
    return raw.decode(errors="replace")
