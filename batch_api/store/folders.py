"""Folders and files that survive a power loss."""

import os
from pathlib import Path


def make(folder: Path) -> None:
    """With its parents, unless it is there. Raises OSError."""
    if not folder.is_dir():
        make(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def sync(path: Path) -> None:
    """What was written to a file, or made, renamed or removed in a folder, is on the disk then."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
