"""Tells the log of requests whose key is wrong: however many come, a line for a while of them."""

import logging
import math

from batch_api.clock import Clock

log = logging.getLogger(__name__)

_LINE_SECONDS = 10


class Refusals:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._untold = 0
        self._address: str | None = None
        self._told_at = -math.inf

    def note(self, address: str | None) -> None:
        """Of whoever is connected, which may be a proxy: what clients say is not logged."""
        self._untold += 1
        self._address = address

    def tell_once(self, *, at_once: bool = False) -> None:
        now = self._clock.monotonic()
        if not self._untold or (now - self._told_at < _LINE_SECONDS and not at_once):
            return
        log.warning(
            "requests without a valid key were refused",
            extra={"requests": self._untold, "last_from": self._address},
        )
        self._untold, self._told_at = 0, now
