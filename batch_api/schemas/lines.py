"""The JSONL formats: reading one input line, and writing one line of the output or error file.

A body is never parsed and printed again: it is passed on as the bytes that it is.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from batch_api.schemas.bad_json import BAD_JSON

MAX_CUSTOM_ID = 512
_SEPARATORS = "\x85\u2028\u2029"  # JSON escapes those below U+0020 anyway

_Fields = dict[str, msgspec.Raw]
_decode_fields = msgspec.json.Decoder(_Fields).decode
_decode_text = msgspec.json.Decoder(str).decode

# The field beside `model` that a body can't do without.
_REQUIRED = {
    "/v1/chat/completions": "messages",
    "/v1/embeddings": "input",
    "/v1/responses": "input",
    "/v1/moderations": "input",
    "/v1/images/generations": "prompt",
    "/v1/images/edits": "prompt",
    "/v1/videos": "prompt",
}
# How its JSON may begin, and how that is said.
_TYPES = {
    "messages": (b"[", "an array"),
    "input": (b'["', "a string or an array"),
    "prompt": (b'["', "a string or an array"),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a batch can't run: one entry of its `errors`. `line` counts from 1."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class InputLine:
    custom_id: str
    body: bytes


class LineRules:
    """What the lines of a batch must be, given its endpoint and the models that are served."""

    def __init__(
        self, endpoint: str, models: frozenset[str] | None, *, is_one_model: bool = False
    ) -> None:
        """`models` is None where nobody can say which models there are.

        `is_one_model`: all lines must name the model that the first one names.
        """
        self._endpoint = endpoint
        self._models = models
        self._is_one_model = is_one_model
        self._first_model = ""

    def read(self, raw: bytes, line: int) -> InputLine | list[Problem]:
        """The line, or everything that is wrong with it."""
        try:
            fields = _decode_fields(raw)
        except msgspec.ValidationError:
            return [Problem("invalid_json_line", "The line is not a JSON object.", None, line)]
        except BAD_JSON as error:
            return [Problem("invalid_json_line", f"The line is not JSON: {error}", None, line)]
        problems = [
            Problem(code, message, param, line)
            for code, message, param in self._problems(fields, raw)
        ]
        if problems:
            return problems
        return InputLine(_decode_text(fields["custom_id"]), bytes(fields["body"]))

    def _problems(self, fields: _Fields, raw: bytes) -> Iterator[tuple[str, str, str | None]]:
        if not _is_utf8(raw):
            yield "invalid_json_line", "The line is not UTF-8.", None
            return
        for name in ("custom_id", "method", "url", "body"):
            if name not in fields or _spells(fields, name, b"null"):
                message = f"Missing required parameter: '{name}'."
                yield "missing_required_parameter", message, name
            else:
                yield from self._problems_of_field(name, fields[name])

    def _problems_of_field(self, name: str, raw: msgspec.Raw) -> Iterator[tuple[str, str, str]]:
        if name == "custom_id":
            yield from _problems_of_custom_id(_text(raw))
        elif name == "method" and _text(raw) != "POST":
            yield "invalid_method", "The method must be 'POST'.", "method"
        elif name == "url" and _text(raw) != self._endpoint:
            message = f"The url must be the batch's endpoint, '{self._endpoint}'."
            yield "invalid_url", message, "url"
        elif name == "body":
            yield from self._problems_of_body(bytes(raw))

    def _problems_of_body(self, raw: bytes) -> Iterator[tuple[str, str, str]]:
        try:
            body = _decode_fields(raw)
        except BAD_JSON:
            yield "invalid_type", "The body must be a JSON object.", "body"
            return
        yield from self._problems_of_model(body)
        required = _REQUIRED.get(self._endpoint)
        if required and (required not in body or _spells(body, required, b"null")):
            yield "invalid_request", f"The body needs '{required}'.", f"body.{required}"
        elif required and bytes(body[required])[0] not in _TYPES[required][0]:
            message = f"'{required}' must be {_TYPES[required][1]}."
            yield "invalid_request", message, f"body.{required}"
        if _spells(body, "stream", b"true"):
            yield "streaming_unsupported", "A batch can't stream.", "body.stream"

    def _problems_of_model(self, body: _Fields) -> Iterator[tuple[str, str, str]]:
        model = _text(body["model"]) if "model" in body else None
        if model is None:
            yield "invalid_request", "The body needs a 'model', a string.", "body.model"
        elif self._is_one_model and self._first_model not in ("", model):
            message = f"A batch is for a single model, here '{self._first_model[:100]}'."
            yield "mismatched_model", message, "body.model"
        elif self._models is not None and model not in self._models:
            known = ", ".join(sorted(self._models))
            message = f"The model '{model[:100]}' does not exist here; there is: {known}."
            yield "model_not_found", message, "body.model"
        else:
            self._first_model = self._first_model or model


def _problems_of_custom_id(custom_id: str | None) -> Iterator[tuple[str, str, str]]:
    if custom_id is None:
        yield "invalid_type", "custom_id must be a string.", "custom_id"
    elif not custom_id:
        yield "invalid_value", "custom_id must not be empty.", "custom_id"
    elif len(custom_id) > MAX_CUSTOM_ID:
        message = f"custom_id must have at most {MAX_CUSTOM_ID} characters."
        yield "string_above_max_length", message, "custom_id"


def _is_utf8(raw: bytes) -> bool:
    if raw.isascii():
        return True
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _text(raw: msgspec.Raw) -> str | None:
    """The string that `raw` spells, or None if it spells something else."""
    try:
        return _decode_text(raw)
    except BAD_JSON:
        return None


def _spells(fields: Mapping[str, msgspec.Raw], name: str, literal: bytes) -> bool:
    return name in fields and bytes(fields[name]) == literal


def answered_line(*, id: str, custom_id: str, status: int, request_id: str, body: bytes) -> bytes:
    """A line for a request that got an HTTP answer; `body` is one JSON object, kept as it is."""
    return _line(
        {
            "id": id,
            "custom_id": custom_id,
            "response": {
                "status_code": status,
                "request_id": request_id,
                # Between tokens only: inside JSON strings line ends are always escaped.
                "body": msgspec.Raw(body.replace(b"\n", b"").replace(b"\r", b"")),
            },
            "error": None,
        }
    )


def unanswered_line(*, id: str, custom_id: str, code: str, message: str) -> bytes:
    """A line for a request that was not run, or never got an answer."""
    return _line(
        {
            "id": id,
            "custom_id": custom_id,
            "response": None,
            "error": {"code": code, "message": message},
        }
    )


def _line(content: dict[str, Any]) -> bytes:
    """Also to clients that use Python's `splitlines`, for which some characters end a line."""
    line = msgspec.json.encode(content)
    if not line.isascii():
        for separator in _SEPARATORS:
            line = line.replace(separator.encode(), b"\\u%04x" % ord(separator))
    return line + b"\n"
