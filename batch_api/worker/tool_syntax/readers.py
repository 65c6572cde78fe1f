"""Read one call as it comes: its name as soon as it is known, then its arguments piece by piece."""

import json
import re
from abc import ABC, abstractmethod

from batch_api.worker.tool_syntax.json_value import JsonValue
from batch_api.worker.tool_syntax.pieces import Arguments, CallBegins, Piece

_HEADER = re.compile(
    r'\s*\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*"([^"\\]*)"\s*,'
    r'\s*"(?:arguments|parameters)"\s*:\s*(?=\{)'
)
_NAMED = re.compile(r"([a-zA-Z0-9_-]+)\s*(?:\[CALL_ID\]\w*)?(?:\[ARGS\])?\s*(?=\{)")
_LONGEST_HEADER = 200


class Reader(ABC):
    def __init__(self, names: frozenset[str]) -> None:
        """`names`: of the functions that may be called."""
        self.text = ""
        """What it took before it was sure of a call."""
        self.rest = ""
        """What follows the call."""
        self.is_finished = False
        self.is_refused = False
        """Whether `text` can't be a call."""
        self._names = names
        self._arguments: JsonValue | None = None

    @abstractmethod
    def add(self, text: str) -> list[Piece]: ...


class ObjectReader(Reader):
    """`{"name": …, "arguments": {…}}`; Llama says `parameters`."""

    def __init__(self, names: frozenset[str]) -> None:
        super().__init__(names)
        self._object = JsonValue()

    def add(self, text: str) -> list[Piece]:
        size = self._object.add(text)
        self.rest = text[size:]
        self.is_finished = self._object.is_finished
        if self._arguments is not None:
            return self._more(self._arguments, text[:size])
        self.text += text[:size]
        return self._begin()

    def _begin(self) -> list[Piece]:
        if header := _HEADER.match(self.text):
            return self._begin_with(header)
        self.is_refused = self.text.lstrip()[:1] not in ("", "{")
        return self._whole() if self.is_finished and not self.is_refused else []

    def _begin_with(self, header: re.Match[str]) -> list[Piece]:
        self.is_refused = header[1] not in self._names
        if self.is_refused:
            return []
        self._arguments = JsonValue()
        more = self._more(self._arguments, self.text[header.end() :])
        return [CallBegins(header[1]), *more]

    def _more(self, arguments: JsonValue, text: str) -> list[Piece]:
        size = 0 if arguments.is_finished else arguments.add(text)
        return [Arguments(text[:size])] if size else []

    def _whole(self) -> list[Piece]:
        """A call whose keys come in another order, or whose arguments are missing or quoted."""
        call = _loads(self.text)
        self.is_refused = not isinstance(call, dict) or call.get("name") not in self._names
        if self.is_refused:
            return []
        assert isinstance(call, dict)
        arguments = call.get("arguments", call.get("parameters", {}))
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        return [CallBegins(call["name"]), Arguments(text)]


class NamedReader(Reader):
    """`name{…}`, or `name[ARGS]{…}`, as newer Mistral models write."""

    def add(self, text: str) -> list[Piece]:
        if self._arguments is not None:
            return self._more(self._arguments, text)
        self.text += text
        header = _NAMED.match(self.text)
        if header is None or header[1] not in self._names:
            self.is_refused = header is not None or len(self.text) > _LONGEST_HEADER
            return []
        self._arguments = JsonValue()
        more = self._more(self._arguments, self.text[header.end() :])
        return [CallBegins(header[1]), *more]

    def _more(self, arguments: JsonValue, text: str) -> list[Piece]:
        size = arguments.add(text)
        self.rest = text[size:]
        self.is_finished = arguments.is_finished
        return [Arguments(text[:size])]


def _loads(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
