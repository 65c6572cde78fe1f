import asyncio
import hashlib
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from batch_api.store.blobs import Blobs, read_slices

MIB = 1024 * 1024

PUBLISH = """
import asyncio, sys
from pathlib import Path
from batch_api.store.blobs import Blobs

async def main():
    blobs = Blobs(Path(sys.argv[1]))
    async with blobs.writing("file-1") as writer:
        await writer.write(b"12345")
        await blobs.publish("file-1", writer)

asyncio.run(main())
"""


async def write(blobs: Blobs, id: str, *chunks: bytes) -> None:
    async with blobs.writing(id) as writer:
        for chunk in chunks:
            await writer.write(chunk)
        await blobs.publish(id, writer)


def names(blobs: Blobs) -> set[str]:
    return {path.name for path in blobs.path("any").parent.iterdir()}


def content(blobs: Blobs, id: str) -> bytes:
    return blobs.path(id).read_bytes()


async def test_a_blob_is_counted_and_hashed_as_it_is_written(blobs: Blobs) -> None:
    chunks = [b"a" * 700_000, b"b" * 700_000, b"", b"c"]
    async with blobs.writing("file-1") as writer:
        for chunk in chunks:
            await writer.write(chunk)
        written = await blobs.publish("file-1", writer)

    assert content(blobs, "file-1") == b"".join(chunks)
    assert written.bytes == writer.bytes == 1_400_001
    assert written.sha256 == hashlib.sha256(b"".join(chunks)).hexdigest()
    assert names(blobs) == {"file-1"}


async def test_nothing_stays_of_a_blob_that_is_not_published(blobs: Blobs) -> None:
    async with blobs.writing("file-1") as writer:
        await writer.write(b"x" * 2 * MIB)

    assert names(blobs) == set()


async def test_nothing_stays_of_a_blob_whose_writer_failed(blobs: Blobs) -> None:
    async def fail() -> None:
        async with blobs.writing("file-1") as writer:
            await writer.write(b"x" * 2 * MIB)
            raise RuntimeError("the client is gone")

    with pytest.raises(RuntimeError, match="the client is gone"):
        await fail()
    assert names(blobs) == set()


async def test_nothing_stays_of_a_blob_whose_writer_was_cancelled(blobs: Blobs) -> None:
    begun = asyncio.Event()

    async def write_for_ever() -> None:
        async with blobs.writing("file-1") as writer:
            begun.set()
            while True:
                await writer.write(b"x" * MIB)

    writing = asyncio.create_task(write_for_ever())
    await begun.wait()
    writing.cancel()
    await asyncio.wait([writing])
    assert names(blobs) == set()


async def test_nothing_stays_of_a_blob_that_the_disk_has_no_room_for(blobs: Blobs) -> None:
    with no_file_larger_than(MIB), pytest.raises(OSError, match="File too large"):
        await write(blobs, "file-1", b"x" * MIB, b"y" * MIB)

    assert names(blobs) == set()


async def test_a_blob_is_not_there_before_it_is_published(blobs: Blobs) -> None:
    await write(blobs, "file-1", b"old")
    async with blobs.writing("file-1") as writer:
        await writer.write(b"new")
        assert content(blobs, "file-1") == b"old"
        await blobs.publish("file-1", writer)

    assert content(blobs, "file-1") == b"new"


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
async def test_bytes_are_synced_then_named_then_the_folder_is_synced(tmp_path: Path) -> None:
    calls = await asyncio.to_thread(traced, tmp_path / "blobs")

    assert [name for name in calls if name in ("fsync", "rename")] == ["fsync", "rename", "fsync"]
    assert calls.index("write") < calls.index("fsync")


async def test_a_deleted_blob_is_gone_and_may_be_deleted_again(blobs: Blobs) -> None:
    await write(blobs, "file-1", b"x")

    await blobs.delete("file-1")
    await blobs.delete("file-1")
    assert names(blobs) == set()


async def test_names_are_of_what_is_ours_and_is_not_being_written(blobs: Blobs) -> None:
    await write(blobs, "file-1", b"x")
    for name in ("file-2.unfinished", "part_1", "notes.txt"):
        blobs.path(name).touch()

    async with blobs.writing("file-3") as writer:
        assert await blobs.names() == {"file-1", "file-2.unfinished", "part_1"}
        await blobs.publish("file-3", writer)
        assert await blobs.names() == {"file-1", "file-2.unfinished", "part_1"}
    assert await blobs.names() == {"file-1", "file-2.unfinished", "part_1", "file-3"}


async def test_slices_are_read_from_where_they_lie(blobs: Blobs) -> None:
    await write(blobs, "file-1", b"0123456789")

    assert read_slices(blobs.path("file-1"), [(8, 2), (0, 1), (3, 0)]) == [b"89", b"0", b""]


def traced(folder: Path) -> list[str]:
    """The names of the calls by which a process publishes a blob, in order."""
    log = folder.with_name("calls")
    trace = ["strace", "-f", "-qq", "-o", str(log), "-P", str(folder)]
    paths = [folder / "file-1", folder / "file-1.unfinished"]
    watched = [argument for path in paths for argument in ("-P", str(path))]
    command = [*trace, *watched, sys.executable, "-c", PUBLISH, str(folder)]
    subprocess.run(command, check=True)
    lines = log.read_text().splitlines()
    return [line.split(maxsplit=1)[1].partition("(")[0] for line in lines if "(" in line]


@contextmanager
def no_file_larger_than(limit: int) -> Iterator[None]:
    """A write beyond it fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
