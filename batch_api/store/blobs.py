"""Bytes on disk, one blob a file id: whole and synced, or not there at all."""

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

BLOBS_FOLDER = "files"
UNFINISHED = ".unfinished"

_BUFFER_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Written:
    bytes: int
    sha256: str


class BlobWriter:
    """Collects chunks and writes them a mebibyte at a time, off the event loop."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._buffer = bytearray()
        self.bytes = 0

    async def write(self, chunk: bytes) -> None:
        self._buffer += chunk
        self.bytes += len(chunk)
        if len(self._buffer) >= _BUFFER_BYTES:
            await asyncio.to_thread(self._flush)

    def _flush(self) -> None:
        self._hash.update(self._buffer)
        self._file.write(self._buffer)
        self._buffer.clear()

    def seal(self) -> Written:
        """Everything is on the disk when this returns. Blocks."""
        self._flush()
        self._file.flush()
        os.fsync(self._file.fileno())
        return Written(bytes=self.bytes, sha256=self._hash.hexdigest())


class Blobs:
    """A folder of blobs. Raises OSError as the disk gives it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, id: str) -> Path:
        """Only for an id that the database knows: ids from clients never become paths."""
        return self._folder / id

    @asynccontextmanager
    async def writing(self, id: str) -> AsyncIterator[BlobWriter]:
        """A new blob; nothing of it stays unless `publish` follows within the block."""
        unfinished = self._unfinished(id)
        # Not in a thread: a cancel could keep the thread from it, and the file would stay open.
        file = unfinished.open("wb")
        try:
            yield BlobWriter(file)
        finally:
            _discard(file, unfinished)

    async def publish(self, id: str, writer: BlobWriter) -> Written:
        """Sync the bytes, give them their name, sync the folder."""
        return await asyncio.to_thread(self._publish, id, writer)

    async def read(self, ids: Iterable[str]) -> AsyncGenerator[bytes]:
        """The bytes of one blob after the other. Raises FileNotFoundError."""
        for id in ids:
            with await asyncio.to_thread(self.path(id).open, "rb", buffering=0) as file:
                while chunk := await asyncio.to_thread(file.read, _BUFFER_BYTES):
                    yield chunk

    async def delete(self, id: str) -> None:
        await asyncio.to_thread(self.path(id).unlink, missing_ok=True)

    async def sweep(self, known: Iterable[str]) -> int:
        """Delete what no row speaks of, left by a crash; return how many. Only before serving."""
        return await asyncio.to_thread(self._sweep, set(known))

    def _publish(self, id: str, writer: BlobWriter) -> Written:
        written = writer.seal()
        self._unfinished(id).replace(self.path(id))
        sync_folder(self._folder)
        return written

    def _sweep(self, known: set[str]) -> int:
        orphans = [path for path in self._folder.iterdir() if path.name not in known]
        for path in orphans:
            path.unlink()
        return len(orphans)

    def _unfinished(self, id: str) -> Path:
        return self._folder / f"{id}{UNFINISHED}"


def _discard(file: BinaryIO, unfinished: Path) -> None:
    try:
        file.close()  # writes what is buffered, for which there may be no space
    finally:
        unfinished.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """The names in it are on the disk when this returns. Blocks."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_slices(path: Path, slices: list[tuple[int, int]]) -> list[bytes]:
    """The bytes at each (offset, length). Blocks."""
    with path.open("rb") as file:
        return [os.pread(file.fileno(), length, offset) for offset, length in slices]
