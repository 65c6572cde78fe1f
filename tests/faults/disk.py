"""Disks that are full or break, under a server that runs."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_BLOCK = 4096
_ATTACHED = b"attached"


class SmallDisk:
    """A file system of its own, in memory. Needs the right to mount."""

    def __init__(self, folder: Path, *, size_bytes: int) -> None:
        self.folder = folder
        self._size_bytes = size_bytes

    @contextmanager
    def mounted(self) -> Iterator["SmallDisk"]:
        self.folder.mkdir()
        options = ["-t", "tmpfs", "-o", f"size={self._size_bytes}"]
        subprocess.run(["mount", *options, "none", str(self.folder)], check=True)
        try:
            yield self
        finally:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    def remount(self, how: str) -> None:
        """`ro` or `rw`."""
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.folder)], check=True)

    @property
    def free_bytes(self) -> int:
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def fill(self, *, leaving: int = 0) -> None:
        """Until so many bytes are left."""
        with self._ballast.open("ab", buffering=0) as file, suppress(OSError):
            while self.free_bytes > leaving:
                file.write(bytes(_BLOCK))

    def empty(self) -> None:
        self._ballast.unlink()

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"


@contextmanager
def failing(pid: int, calls: str, error: str, *paths: Path) -> Iterator[None]:
    """Those system calls of a process on those files fail, until the block ends.

    A file is known by its name: it may have been opened before, or not be there yet.
    """
    watched = [argument for path in paths for argument in ("-P", str(path))]
    inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:error={error}"]
    with subprocess.Popen(
        ["strace", "-f", "-o", "/dev/null", *watched, *inject, "-p", str(pid)],
        stderr=subprocess.PIPE,
    ) as strace:
        assert strace.stderr is not None
        for line in strace.stderr:
            if _ATTACHED in line:
                break
        try:
            yield
        finally:
            strace.send_signal(signal.SIGINT)
            strace.stderr.read()
