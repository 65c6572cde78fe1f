"""A worker never outlives the server that started it, even one that was killed."""

import os
from threading import Thread

_STDIN = 0
_READ_BYTES = 1024
ORPHANED = 1  # the exit status, which nobody is left to see


def exit_with_parent() -> None:
    """End this process when its standard input, a pipe from its parent, is closed."""
    Thread(target=_exit_at_end_of_input, name="parent", daemon=True).start()


def _exit_at_end_of_input() -> None:
    while os.read(_STDIN, _READ_BYTES):
        pass
    os._exit(ORPHANED)
