"""Reading a line of an error file: why a request has no answer."""

from dataclasses import dataclass
from typing import Any

import msgspec

from batch_api.schemas.bad_json import BAD_JSON


@dataclass(frozen=True, slots=True)
class LineError:
    code: str | None
    message: str
    status_code: int | None
    """Of the upstream's answer, if there was one."""

    def __str__(self) -> str:
        return self.message if self.status_code is None else f"{self.status_code} {self.message}"


class _Body(msgspec.Struct):
    error: Any = None


_decode_body = msgspec.json.Decoder(_Body).decode


class _Response(msgspec.Struct):
    status_code: int
    body: msgspec.Raw = msgspec.Raw(b"{}")

    @property
    def error(self) -> LineError:
        """Upstreams are free in what they say: `{"error": {"message"}}`, `{"error"}`, or less."""
        try:
            error = _decode_body(self.body).error
        except BAD_JSON:
            error = None
        told = error if isinstance(error, dict) else {"message": error}
        message, code = _text(told.get("message")), _text(told.get("code"))
        return LineError(code, message or "without a reason", self.status_code)


def upstream_error(status: int, body: bytes) -> LineError:
    """Why an upstream says that it did not answer."""
    return _Response(status, msgspec.Raw(body)).error


class _Error(msgspec.Struct):
    code: str | None = None
    message: str = ""


class ErrorLine(msgspec.Struct):
    custom_id: str
    response: _Response | None = None
    error: _Error | None = None

    @property
    def reason(self) -> LineError:
        if self.response is not None:
            return self.response.error
        told = self.error or _Error(message="unknown")
        return LineError(told.code, told.message, None)


_decode_line = msgspec.json.Decoder(ErrorLine, strict=False).decode


def read_error_line(raw: bytes) -> ErrorLine:
    """One that is spoilt is nobody's, and says so."""
    try:
        return _decode_line(raw)
    except BAD_JSON:
        return ErrorLine(custom_id="", error=_Error(message="The line can't be read."))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
