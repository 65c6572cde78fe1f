"""Folders and files that survive a power loss."""

import os
from pathlib import Path

UNFINISHED = ".unfinished"


def make(folder: Path) -> None:
    """With its parents, unless it is there; for nobody else to look into. Raises OSError."""
    if not folder.is_dir():
        make(folder.parent)
        folder.mkdir(exist_ok=True, mode=0o700)
        sync(folder.parent)


def replace(path: Path, content: bytes, *, mode: int) -> None:
    """Under that name stands all of it, or what stood there before. Raises OSError."""
    unfinished = path.with_name(path.name + UNFINISHED)
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    unfinished.chmod(mode)  # whatever the umask
    unfinished.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """What was written to a file, or made, renamed or removed in a folder, is on the disk then."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
