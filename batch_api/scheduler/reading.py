"""Reads a batch's input line by line, with flat memory, and says where each body lies. Blocks."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from batch_api.schemas.lines import InputLine, LineRules, Problem
from batch_api.schemas.marks import BYTE_ORDER_MARK
from batch_api.store.requests import Place

MAX_PROBLEMS = 100
PAGE_LINES = 2_000

_SKIP_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    lines: int
    line_bytes: int
    file_bytes: int


class InputReader:
    """Pages of valid lines, until the end or until there are problems enough."""

    def __init__(self, path: Path, rules: LineRules, limits: Limits) -> None:
        self.problems: list[Problem] = []
        self.total = 0
        self._rules = rules
        self._limits = limits
        self._custom_ids: set[str] = set()
        self._places = self._read(path)

    def page(self) -> list[Place]:
        """The next valid lines; empty at the end."""
        page: list[Place] = []
        for place in self._places:
            page.append(place)
            if len(page) == PAGE_LINES:
                break
        return page

    def _read(self, path: Path) -> Iterator[Place]:
        if path.stat().st_size > self._limits.file_bytes:
            message = f"More than {self._limits.file_bytes} bytes."
            self._report(Problem("file_too_large", message))
            return
        with path.open("rb") as file:
            for number, offset, raw in _lines(file, self._limits.line_bytes):
                place = self._check(number, offset, raw)
                if len(self.problems) == MAX_PROBLEMS or self.total > self._limits.lines:
                    break
                if place is not None:
                    yield place
        if self.total == 0:
            self._report(Problem("empty_file", "The file holds no requests."))
        if self.total > self._limits.lines:
            self._report(Problem("too_many_tasks", f"More than {self._limits.lines} requests."))

    def _check(self, number: int, offset: int, raw: bytes | None) -> Place | None:
        self.total += 1
        if raw is None:
            message = f"The line is longer than {self._limits.line_bytes} bytes."
            self._report(Problem("line_too_long", message, None, number))
            return None
        read = self._rules.read(raw, number)
        if not isinstance(read, InputLine):
            self._report(*read)
            return None
        if read.custom_id in self._custom_ids:
            message = f"The custom_id '{read.custom_id}' duplicates another request's."
            self._report(Problem("duplicate_custom_id", message, "custom_id", number))
            return None
        self._custom_ids.add(read.custom_id)
        # Equal bytes are equal bodies, so the first place that holds them will do.
        start = offset + raw.index(read.body)
        return Place(number, read.custom_id, start, len(read.body))

    def _report(self, *problems: Problem) -> None:
        self.problems += problems[: MAX_PROBLEMS - len(self.problems)]


def _lines(file: BinaryIO, limit: int) -> Iterator[tuple[int, int, bytes | None]]:
    """(number from 1, offset, bytes) of each line that is not blank; None for one too long.

    Lines end with LF alone: U+2028 and U+0085 may stand in a string.
    """
    number, offset = 0, _skip_bom(file)
    while raw := file.readline(limit + 1):
        number += 1
        start, offset = offset, offset + len(raw)
        if len(raw) > limit and not raw.endswith(b"\n"):
            offset += _skip_line(file)
            yield number, start, None
        elif not raw.isspace():
            yield number, start, raw


def _skip_bom(file: BinaryIO) -> int:
    """How many bytes it has."""
    skipped = len(BYTE_ORDER_MARK) if file.read(len(BYTE_ORDER_MARK)) == BYTE_ORDER_MARK else 0
    file.seek(skipped)
    return skipped


def _skip_line(file: BinaryIO) -> int:
    """The bytes up to the end of the line, none of them kept."""
    skipped = 0
    while part := file.readline(_SKIP_BYTES):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
    return skipped
