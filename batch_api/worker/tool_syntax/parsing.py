"""Tells the text of an answer from the calls in it, for all syntaxes with marks around calls."""

from collections.abc import Callable
from dataclasses import dataclass

from batch_api.engine.detokenizer import overlap
from batch_api.worker.tool_syntax.pieces import Piece, Text
from batch_api.worker.tool_syntax.readers import Reader


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    open: str  # what begins a call, or a list of calls
    list_open: str = ""  # what may follow it
    next: str = ""  # what follows a call if there is another one
    close: str = ""  # what follows the last one
    may_be_omitted: bool = False  # whether an answer may begin with a call without its mark


_State = Callable[[str, list[Piece]], str]


class MarkedParser:
    """Of each text, a state takes what it can, and says what is left for the state that follows.

    Text that may become a mark, and the blanks before it, are held back.
    """

    def __init__(self, marks: Marks, reader: Callable[[str], Reader]) -> None:
        """`reader`: of a call that begins with this character."""
        self._marks = marks
        self._new_reader = reader
        self._state: _State = self._begin if marks.may_be_omitted else self._speak
        self._reader: Reader | None = None
        self._opening = ""  # the mark before what is not surely a call yet, and its blanks
        self._held = ""
        self._is_calling = False
        self._has_called = False

    def add(self, text: str) -> list[Piece]:
        pieces: list[Piece] = []
        text, self._held = self._held + text, ""
        while text:
            text = self._state(text, pieces)
        return pieces

    def finish(self) -> list[Piece]:
        """A call that was begun stays one, cut as it is."""
        if self._is_calling:
            return []
        read = self._reader.text if self._reader else ""
        text = self._opening + read + self._held
        return [] if self._has_called and not text.strip() else _texts(text)

    def _speak(self, text: str, pieces: list[Piece]) -> str:
        before, mark, after = text.partition(self._marks.open)
        said = before.rstrip() if mark else before[: _surely_text(before, self._marks.open)]
        pieces += _texts(said)
        if not mark:
            self._held = before[len(said) :]
            return ""
        self._opening = before[len(said) :] + mark
        self._state = self._open
        return after

    def _open(self, text: str, _pieces: list[Piece]) -> str:
        rest, mark = text.lstrip(), self._marks.list_open
        if not rest:
            return self._wait(text)
        self._state = self._begin
        if not mark or not rest.startswith(mark):
            return text
        rest = rest.removeprefix(mark)
        self._opening += text.removesuffix(rest)
        return rest

    def _begin(self, text: str, _pieces: list[Piece]) -> str:
        if not text.strip():
            return self._wait(text)
        self._reader = self._new_reader(text.lstrip()[0])
        self._state = self._read
        return text

    def _read(self, text: str, pieces: list[Piece]) -> str:
        assert self._reader is not None
        reader, found = self._reader, self._reader.add(text)
        if reader.is_refused:
            pieces += _texts(self._opening)
            self._leave(self._speak)
            return reader.text + reader.rest
        if found:
            pieces += found
            self._opening, self._is_calling, self._has_called = "", True, True
        if not reader.is_finished:
            return ""
        self._leave(self._follow)
        return reader.rest

    def _follow(self, text: str, _pieces: list[Piece]) -> str:
        rest = text.lstrip()
        for mark, state in ((self._marks.next, self._begin), (self._marks.close, self._speak)):
            if mark and rest.startswith(mark):
                self._state = state
                return rest.removeprefix(mark)
            if mark.startswith(rest) and mark:
                return self._wait(text)
        self._state = self._speak
        return text

    def _leave(self, state: _State) -> None:
        self._reader, self._state = None, state
        self._opening, self._is_calling = "", False

    def _wait(self, text: str) -> str:
        self._held = text
        return ""


def _texts(text: str) -> list[Piece]:
    return [Text(text)] if text else []


def _surely_text(text: str, mark: str) -> int:
    """The length of `text` without what may begin a mark, and without the blanks before that."""
    return len(text[: len(text) - overlap(text, mark)].rstrip())
