"""With a server that can't be reached: it may be starting anew."""

import time
from collections.abc import Callable
from typing import TypeVar

from batch_api.client.sentences import Away

PATIENCE_SECONDS = 300.0

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0

_Told = TypeVar("_Told")


def patiently(
    ask: Callable[[], _Told],
    *,
    saying: Callable[[str], object],
    seconds: float = PATIENCE_SECONDS,
) -> _Told:
    """What it is told, asked again and again; what it waits for is said. Raises Unusable."""
    until, pause, said = time.monotonic() + seconds, _FIRST_PAUSE_SECONDS, ""
    while True:
        try:
            return ask()
        except Away as away:
            if time.monotonic() >= until:
                raise
            if str(away) != said:
                saying(said := str(away))
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
