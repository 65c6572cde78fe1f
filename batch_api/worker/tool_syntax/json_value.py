"""Where one JSON value ends, in text that comes in pieces."""

import re

_OUTSIDE = re.compile(r'["{}\[\]]')
_INSIDE = re.compile(r'["\\]')


class JsonValue:
    """Follows one object, array or string; its text is not kept."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._is_escaped = False
        self.is_finished = False

    def add(self, text: str) -> int:
        """How much of `text` belongs to the value: all of it, unless it ends here."""
        at = 0
        while not self.is_finished and at < len(text):
            at = self._next_in_string(text, at) if self._in_string else self._next(text, at)
        return at

    def _next(self, text: str, at: int) -> int:
        found = _OUTSIDE.search(text, at)
        if found is None:
            return len(text)
        if found[0] == '"':
            self._in_string = True
        else:
            self._depth += 1 if found[0] in "{[" else -1
            self.is_finished = self._depth <= 0
        return found.end()

    def _next_in_string(self, text: str, at: int) -> int:
        if self._is_escaped:
            self._is_escaped = False
            return at + 1
        found = _INSIDE.search(text, at)
        if found is None:
            return len(text)
        if found[0] == "\\":
            self._is_escaped = True
        else:
            self._in_string = False
            self.is_finished = self._depth == 0
        return found.end()
