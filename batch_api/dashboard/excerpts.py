"""What pages show of a file: never more than a little of it, however long its lines are."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from batch_api.schemas.bad_json import BAD_JSON

MOST_BYTES = 128 * 1024
"""Of one text."""

_CHUNK_BYTES = 1024 * 1024
_DEEPEST = 32
"""Deeper JSON is mostly indentation once it is laid out."""
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_BRACKET = re.compile(rb"[\[\]{}]")


@dataclass(frozen=True, slots=True)
class Excerpt:
    raw: str
    laid_out: str | None
    """Its JSON, indented: numbers and escapes stay as they are. None if it is not for that."""
    is_cut: bool
    """There is more of it."""


def excerpt(raw: bytes) -> Excerpt:
    """`raw`: the whole text, or more of it than `MOST_BYTES`."""
    is_cut = len(raw) > MOST_BYTES
    shown = raw[:MOST_BYTES].rstrip(b"\n")
    laid_out = None if is_cut else _laid_out(shown)
    return Excerpt(shown.decode(errors="replace"), laid_out, is_cut)


def part_of(path: Path, offset: int, length: int) -> Excerpt | None:
    """None if the file is gone. Blocks."""
    try:
        with path.open("rb") as file:
            return excerpt(os.pread(file.fileno(), min(length, MOST_BYTES + 1), offset))
    except FileNotFoundError:
        return None


def line_of(path: Path, before: int) -> Excerpt | None:
    """The line that has so many others before it; None if file or line is gone. Blocks."""
    try:
        with path.open("rb") as file:
            _skip(file, before)
            raw = file.readline(MOST_BYTES + 1)
    except FileNotFoundError:
        return None
    return excerpt(raw) if raw else None


def _skip(file: BinaryIO, lines: int) -> None:
    """In pieces, as a single line may be very long."""
    start = 0
    while lines and (chunk := file.read(_CHUNK_BYTES)):
        found = chunk.count(b"\n")
        if found >= lines:
            start += _end_of_line(chunk, lines)
            break
        lines -= found
        start += len(chunk)
    file.seek(start)


def _end_of_line(chunk: bytes, lines: int) -> int:
    """Where the line begins that has so many before it."""
    at = 0
    for _ in range(lines):
        at = chunk.index(b"\n", at) + 1
    return at


def _laid_out(raw: bytes) -> str | None:
    if _depth(raw) > _DEEPEST:
        return None
    try:
        text = msgspec.json.format(raw, indent=2).decode(errors="replace")
    except BAD_JSON:
        return None
    return text if len(text) <= 2 * MOST_BYTES else None


def _depth(raw: bytes) -> int:
    """Of valid JSON; of anything else, something."""
    depth = deepest = 0
    for bracket in _BRACKET.findall(_STRING.sub(b"", raw)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest
