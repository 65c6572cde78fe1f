"""The answers that a batch takes over from the one that it continues. Blocks; memory is flat."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from batch_api.scheduler.answers import usage_of
from batch_api.schemas.bad_json import BAD_JSON
from batch_api.schemas.replies import Said, said
from batch_api.store.batches import Tally, Usage
from batch_api.store.requests import Place

_PORTION_BYTES = 8 * 1024 * 1024


class _Response(msgspec.Struct):
    body: msgspec.Raw


class _OutputLine(msgspec.Struct):
    custom_id: str
    response: _Response


_decode = msgspec.json.Decoder(_OutputLine).decode


class AnswersSpoilt(Exception):
    """The file is not what it was when it was written."""


class EarlierAnswers:
    """An output file has the order of its input, so one pass over both finds every answer.

    Whatever reads on raises AnswersSpoilt and OSError.
    """

    def __init__(self, output: Path | None) -> None:
        self._lines = _read(output)
        self._next = next(self._lines, None)
        self._completed = 0
        self._usage = Usage()
        self._model: str | None = None

    @property
    def tally(self) -> Tally:
        """Of what has been taken over so far."""
        return Tally(self._completed, 0, self._usage, self._model)

    def check_all_taken(self, count: int) -> None:
        """After the last place: what finds no line would be asked, and paid, again.

        Raises AnswersSpoilt.
        """
        if self._next is not None or self._completed != count:
            raise AnswersSpoilt(f"{self._completed} of {count} answers found their line")

    def portions(self, places: Sequence[Place]) -> Iterator[list[Place]]:
        """The same places, in order, with the answers that there are: not too many bytes a time."""
        portion: list[Place] = []
        size = 0
        for place in places:
            if self._next is not None and self._next[0].custom_id == place.custom_id:
                line, raw = self._next
                place = replace(place, answer=raw)
                size += len(raw)
                self._count(line)
                self._next = next(self._lines, None)
            portion.append(place)
            if size >= _PORTION_BYTES:
                yield portion
                portion, size = [], 0
        if portion:
            yield portion

    def _count(self, line: _OutputLine) -> None:
        told = said(bytes(line.response.body)) or Said()
        self._completed += 1
        self._usage += usage_of(told.usage)
        self._model = self._model or told.model


def _read(path: Path | None) -> Iterator[tuple[_OutputLine, bytes]]:
    if path is None:
        return
    with path.open("rb") as file:
        for raw in file:
            try:
                yield _decode(raw), raw
            except BAD_JSON as error:
                raise AnswersSpoilt("a line can't be read") from error
