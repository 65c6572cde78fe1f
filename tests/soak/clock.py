"""A wall clock for one process that goes ahead of everybody's, through libfaketime."""

from pathlib import Path

_LIBRARIES = "*/faketime/libfaketimeMT.so.1"


class NoFaketime(Exception):
    """It isn't installed."""


def faked(seconds_ahead: int) -> dict[str, str]:
    """The environment of such a process. Its monotonic clock is left alone. Raises NoFaketime."""
    libraries = [*Path("/usr/lib").glob(_LIBRARIES), *Path("/usr/lib").glob(f"*/{_LIBRARIES}")]
    if not libraries:
        raise NoFaketime("the soak turns the server's clock with libfaketime: install faketime")
    return {
        "LD_PRELOAD": str(libraries[0]),
        "FAKETIME": f"+{seconds_ahead}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # or waits for Python's own lock end at once, or never
    }
