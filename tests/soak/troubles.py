"""An upstream that has troubles: killed, silent, or talking nonsense, by chance."""

import random
import signal
import threading
import urllib.error
from collections import Counter

import msgspec
import psutil

from tests.server import StandinProcess
from tests.standin import (
    BROKEN_JSON,
    CLOSED,
    ENDLESS,
    HALF,
    HANG,
    HTML,
    RESET,
    Fault,
)

_TROUBLES = {
    "hang": HANG,
    "html": HTML,
    "broken json": BROKEN_JSON,
    "a list": Fault(body="[]"),
    "half a body": HALF,
    "reset": RESET,
    "closed": CLOSED,
    "endless": ENDLESS,
    "500": Fault(status=500),
    "502": Fault(status=502, body=HTML.body),
    "503": Fault(status=503),
    "503, retry-after": Fault(status=503, retry_after="1"),
    "429, nonsense": Fault(status=429, retry_after="tomorrow"),
    "slow": Fault(ending="slow", delay_ms=1500),
    "too slow": Fault(ending="slow", delay_ms=60_000),
    "gzip": Fault(is_gzipped=True),
}
_WELL = Fault(delay_ms=10)
_LOOK_SECONDS = 0.1


class Troubles:
    """Of one upstream."""

    def __init__(self, upstream: StandinProcess, seed: str) -> None:
        self.counts: Counter[str] = Counter()
        self._upstream = upstream
        self._chance = random.Random(seed)

    @property
    def deaths(self) -> int:
        return self.counts["killed"] + self.counts["stopped, then killed"] + self.counts["poisoned"]

    def live(self, closing: threading.Event) -> None:
        """Until `closing`; then it is well for ever, but for poison."""
        self._set(_WELL)
        while not closing.is_set():
            self._watch(self._chance.uniform(1, 8), closing)
            self._have(closing)
        self._set(_WELL)

    def watch(self, stop: threading.Event) -> None:
        """Until `stop` it is started again when it dies."""
        while not stop.is_set():
            self._watch(_LOOK_SECONDS, stop)

    def _have(self, closing: threading.Event) -> None:
        seconds = self._chance.uniform(0.2, 4)
        dice = self._chance.random()
        if dice < 0.15:
            self._kill("killed", seconds / 2, closing)
        elif dice < 0.25:
            psutil.Process(self._upstream.pid).send_signal(signal.SIGSTOP)
            closing.wait(seconds)
            self._kill("stopped, then killed", 0, closing)
        else:
            name = self._chance.choice(list(_TROUBLES))
            self.counts[name] += 1
            self._set(msgspec.structs.replace(_TROUBLES[name], is_everywhere=True))
            self._watch(seconds, closing)
            self._set(_WELL)

    def _kill(self, how: str, seconds: float, closing: threading.Event) -> None:
        self.counts[how] += 1
        self._upstream.kill()
        closing.wait(seconds)
        self._start()

    def _watch(self, seconds: float, stop: threading.Event) -> None:
        """It may die meanwhile, of a poisonous line."""
        looks = max(1, round(seconds / _LOOK_SECONDS))
        for _ in range(looks):
            if self._upstream.has_ended:
                self.counts["poisoned"] += 1
                self._start()
            if stop.wait(_LOOK_SECONDS):
                return

    def _start(self) -> None:
        self._upstream.spawn()
        self._set(_WELL)

    def _set(self, fault: Fault) -> None:
        """However often it dies meanwhile, of poison in its queue."""
        while True:
            try:
                self._upstream.set_fault(fault)
                return
            except (urllib.error.URLError, OSError):
                if self._upstream.has_ended:
                    self.counts["poisoned"] += 1
                    self._upstream.spawn()
