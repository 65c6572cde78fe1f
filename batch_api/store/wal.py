"""Whether a write-ahead log has lost what was committed to it.

SQLite reads a log up to the first frame that is wrong, and silently forgets what follows: right
after a crash in the middle of a commit, but not if the disk has spoilt an older one.
https://sqlite.org/fileformat.html#the_write_ahead_log
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

_HEADER = struct.Struct(">8I")
_FRAME = struct.Struct(">6I")
_MAGIC = 0x377F0682
"""The last bit tells the order of bytes in checksums: 1 is big-endian."""

_Sum = tuple[int, int]


class _Frame(NamedTuple):
    is_commit: bool
    is_whole: bool


def fault_of_wal(database: Path) -> str | None:
    """What is wrong with the log beside it, if it has lost a commit; None if it has not."""
    path = database.with_name(f"{database.name}-wal")
    if not path.exists():
        return None
    with path.open("rb") as log:
        header = log.read(_HEADER.size)
        # The header is synced before the first frame is written.
        if not (first := log.read(1)):
            return None
        if not _is_header(header):
            return "the header of its write-ahead log is spoilt"
        log.seek(-len(first), 1)
        return _fault_of(_frames(log, header))


def _fault_of(frames: Iterator[_Frame]) -> str | None:
    """A commit is synced before the next frame is written, so all before it was on the disk."""
    is_broken = has_lost = False
    for frame in frames:
        if has_lost:
            return "its write-ahead log is spoilt in the middle"
        is_broken |= not frame.is_whole
        has_lost = is_broken and frame.is_commit
    return None


def _frames(log: BinaryIO, header: bytes) -> Iterator[_Frame]:
    """Those that were written since the log was last begun anew."""
    magic, _, page_bytes, _, *salts, first, second = _HEADER.unpack(header)
    words = struct.Struct(f"{'>' if magic & 1 else '<'}{page_bytes // 4}I")
    pair = struct.Struct(words.format[0] + "2I")
    running = (first, second)
    is_chained = True
    while len(raw := log.read(_FRAME.size + page_bytes)) == _FRAME.size + page_bytes:
        _, pages, *found, first, second = _FRAME.unpack_from(raw)
        if found != salts:
            is_chained = False
            continue
        running = _sum(running, pair.unpack_from(raw))
        running = _sum(running, words.unpack_from(raw, _FRAME.size))
        is_chained &= running == (first, second)
        yield _Frame(is_commit=pages > 0, is_whole=is_chained)


def _is_header(header: bytes) -> bool:
    if len(header) < _HEADER.size or (magic := _HEADER.unpack(header)[0]) & ~1 != _MAGIC:
        return False
    words = struct.unpack(f"{'>' if magic & 1 else '<'}6I", header[:24])
    return _sum((0, 0), words) == _HEADER.unpack(header)[6:]


def _sum(start: _Sum, words: tuple[int, ...]) -> _Sum:
    first, second = start
    for one, other in zip(words[::2], words[1::2], strict=True):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + other + first) & 0xFFFFFFFF
    return first, second
