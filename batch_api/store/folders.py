"""Folders whose entries survive a power loss."""

import os
from pathlib import Path


def make(folder: Path) -> None:
    """With its parents, unless it is there. Raises OSError."""
    if not folder.is_dir():
        make(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def sync(folder: Path) -> None:
    """What was made, renamed or removed in it is on the disk when this returns."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
