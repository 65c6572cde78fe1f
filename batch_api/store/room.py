"""How much of the disk is left, and who may still use it.

Below one mark nothing more is taken in; below half of it nothing more is sent to the upstreams.
What is left then is for the answers of what is in flight and for the files of batches that end.
"""

import errno
import os
from pathlib import Path

_MOST_BYTES = 1024**3
_SHARE = 20


class Room:
    def __init__(self, folder: Path, *, min_free_bytes: int | None = None) -> None:
        """`min_free_bytes`: the mark; None: a twentieth of the disk, at most 1 GiB."""
        self._folder = folder
        self._min_free_bytes = min_free_bytes

    def free_bytes(self) -> int:
        found = os.statvfs(self._folder)
        return found.f_bavail * found.f_frsize

    def min_free_bytes(self) -> int:
        if self._min_free_bytes is not None:
            return self._min_free_bytes
        found = os.statvfs(self._folder)
        return min(_MOST_BYTES, found.f_blocks * found.f_frsize // _SHARE)

    def is_low(self, *, after_bytes: int = 0) -> bool:
        """Whether nothing more may come in; or so many bytes may not."""
        return self.free_bytes() - after_bytes < self.min_free_bytes()

    def expect(self, bytes: int) -> None:
        """So many are to come. Raises OSError if there is no room for them."""
        if self.is_low(after_bytes=bytes):
            raise OSError(errno.ENOSPC, "the room that is left is kept free")

    def is_short(self) -> bool:
        """Whether what is left is for answers that are on their way."""
        return self.free_bytes() < self.min_free_bytes() // 2

    def state(self) -> str:
        return "short" if self.is_short() else "low" if self.is_low() else "ok"
