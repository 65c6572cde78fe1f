"""Bytes on disk, one blob a file id: whole and synced, or not there at all."""

import asyncio
import errno
import hashlib
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from batch_api.failpoints import failpoint
from batch_api.store import folders
from batch_api.store.folders import UNFINISHED
from batch_api.store.room import Room
from batch_api.store.trouble import DiskFailed, passes

BLOBS_FOLDER = "files"
ORPHAN = ".orphan"
"""Of whole blobs that were set aside, as no row speaks of them: a database that was restored from
an older copy knows nothing of what was acknowledged since.
"""
KEEP_ORPHANS_DAYS = 7

_BUFFER_BYTES = 1024 * 1024
_OURS = re.compile(rf"(file-|part_)[A-Za-z0-9_-]+({re.escape(UNFINISHED)}|{re.escape(ORPHAN)})?")


@dataclass(frozen=True, slots=True)
class Written:
    bytes: int
    sha256: str


class BlobWriter:
    """Collects chunks and writes them a mebibyte at a time, off the event loop."""

    def __init__(self, file: BinaryIO, room: Room | None = None) -> None:
        """`room`: not all of it may be used; None: all may."""
        self._file = file
        self._room = room
        self._hash = hashlib.sha256()
        self._buffer = bytearray()
        self.bytes = 0

    def expect(self, size: int) -> None:
        """So many bytes are to come. Raises OSError if there is no room for them."""
        if self._room is not None:
            self._room.expect(size)

    async def write(self, chunk: bytes) -> None:
        self._buffer += chunk
        self.bytes += len(chunk)
        if len(self._buffer) >= _BUFFER_BYTES:
            await asyncio.to_thread(self._flush)

    def _flush(self) -> None:
        self.expect(len(self._buffer))
        self._hash.update(self._buffer)
        with _believed("a file can't be written"):
            self._file.write(self._buffer)
        self._buffer.clear()

    def seal(self) -> Written:
        """Everything is on the disk when this returns. Blocks."""
        self._flush()
        with _believed("a file can't be synced"):
            self._file.flush()
            os.fsync(self._file.fileno())
        return Written(bytes=self.bytes, sha256=self._hash.hexdigest())


class Blobs:
    """A folder of blobs.

    Raises OSError as the disk gives it; DiskFailed for a write that fails but not for want of room.
    """

    def __init__(self, folder: Path, *, min_free_bytes: int | None = None) -> None:
        """`min_free_bytes`: as Room has it."""
        self._folder = folder
        folders.make(folder)
        self._being_written: set[str] = set()
        self.room = Room(folder, min_free_bytes=min_free_bytes)

    def path(self, id: str) -> Path:
        """Only for an id that the database knows: ids from clients never become paths."""
        return self._folder / id

    @asynccontextmanager
    async def receiving(self, id: str) -> AsyncIterator[BlobWriter]:
        """As `writing`, for what comes from outside: it may not use the room that is kept free."""
        async with self.writing(id, room=self.room) as writer:
            yield writer

    @asynccontextmanager
    async def writing(self, id: str, *, room: Room | None = None) -> AsyncIterator[BlobWriter]:
        """A new blob; nothing of it stays unless `publish` follows within the block."""
        unfinished = self._unfinished(id)
        # Not in a thread: a cancel could keep the thread from it, and the file would stay open.
        with _believed("a file can't be begun"):
            file = unfinished.open("wb")
        self._being_written.add(id)
        try:
            yield BlobWriter(file, room)
        finally:
            self._being_written.discard(id)
            _discard(file, unfinished)

    async def publish(self, id: str, writer: BlobWriter) -> Written:
        """Sync the bytes, give them their name, sync the folder."""
        written = await asyncio.to_thread(self._publish, id, writer)
        await failpoint("orphaned_blob")
        return written

    async def read(self, ids: Iterable[str]) -> AsyncGenerator[bytes]:
        """The bytes of one blob after the other. Raises FileNotFoundError."""
        for id in ids:
            with await asyncio.to_thread(self.path(id).open, "rb", buffering=0) as file:
                while chunk := await asyncio.to_thread(file.read, _BUFFER_BYTES):
                    yield chunk

    async def delete(self, id: str) -> None:
        with _believed("a file can't be deleted"):
            await asyncio.to_thread(self.path(id).unlink, missing_ok=True)

    async def set_aside(self, name: str, *, now: float) -> None:
        """As a whole blob of which no row speaks, or half of one, which is deleted."""
        with _believed("a file can't be set aside"):
            await asyncio.to_thread(set_aside, self.path(name), now=now)

    async def drop_orphans(self, *, set_aside_before: float) -> int:
        """Delete them for good; return how many."""
        with _believed("a file can't be deleted"):
            return await asyncio.to_thread(_drop_orphans, self._folder, set_aside_before)

    async def orphans(self) -> tuple[int, int]:
        """How many are set aside, and their bytes."""
        return await asyncio.to_thread(_count_orphans, self._folder)

    async def names(self) -> set[str]:
        """What is in the folder, but for what is being written, set aside, or none of ours."""
        names = await asyncio.to_thread(os.listdir, self._folder)
        being_written = self._being_written | {f"{id}{UNFINISHED}" for id in self._being_written}
        ours = {name for name in names if is_ours(name) and not name.endswith(ORPHAN)}
        return ours - being_written

    def _publish(self, id: str, writer: BlobWriter) -> Written:
        written = writer.seal()
        with _believed("a file can't get its name"):
            self._unfinished(id).replace(self.path(id))
            folders.sync(self._folder)
        return written

    def _unfinished(self, id: str) -> Path:
        return self._folder / f"{id}{UNFINISHED}"


def is_ours(name: str) -> bool:
    """Whether such a name in a folder of blobs was given by us."""
    return _OURS.fullmatch(name) is not None


def set_aside(blob: Path, *, now: float) -> None:
    """Blocks. Raises OSError."""
    if blob.name.endswith(UNFINISHED):
        blob.unlink(missing_ok=True)
        return
    with suppress(FileNotFoundError):
        os.utime(blob, (now, now))
        blob.replace(blob.with_name(f"{blob.name}{ORPHAN}"))


def _orphans(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if is_ours(path.name) and path.suffix == ORPHAN]


def _count_orphans(folder: Path) -> tuple[int, int]:
    sizes = []
    for path in _orphans(folder):
        with suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return len(sizes), sum(sizes)


def _drop_orphans(folder: Path, set_aside_before: float) -> int:
    old = [path for path in _orphans(folder) if path.stat().st_mtime < set_aside_before]
    for path in old:
        path.unlink()
    return len(old)


def are_gone(folder: Path, ids: Collection[str]) -> bool:
    """Whether this can't be the folder that had these blobs, as of several none is there. Blocks.

    A disk that is not mounted leaves an empty folder, or none.
    """
    if not folder.is_dir():
        return len(ids) > 0
    return len(ids) > 1 and not any((folder / id).exists() for id in ids)


@contextmanager
def _believed(what: str) -> Iterator[None]:
    """Raises DiskFailed for an error after which nothing of what was written can be believed."""
    try:
        yield
    except OSError as error:
        if passes(error):
            raise
        raise DiskFailed(what, error) from error


def _discard(file: BinaryIO, unfinished: Path) -> None:
    with suppress(OSError):  # it writes what is buffered; what is to stay was synced before
        file.close()
    unfinished.unlink(missing_ok=True)


def read_slices(path: Path, slices: list[tuple[int, int]]) -> list[bytes]:
    """The bytes at each (offset, length). Blocks. Raises OSError, also if the file is shorter."""
    with path.open("rb") as file:
        return [_read_slice(file.fileno(), offset, length) for offset, length in slices]


def _read_slice(file: int, offset: int, length: int) -> bytes:
    found = os.pread(file, length, offset)
    if len(found) < length:
        raise OSError(errno.EIO, "the file is shorter than it was")
    return found
