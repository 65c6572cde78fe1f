"""A client that does not give up: unacknowledged calls are made again, under the same key."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from openai import APIConnectionError, APIStatusError, NotFoundError, OpenAI

_Result = TypeVar("_Result")

_PATIENCE_SECONDS = 240
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0
_PASSING = {408, 429, 500, 502, 503, 504}


class GivenUp(Exception):
    """It was called off, or the server was away for too long."""


class Persistence:
    def __init__(self, stop: threading.Event) -> None:
        """`stop`: nobody needs the answers any more."""
        self._stop = stop
        self.statuses: dict[int, int] = {}
        """How often each error status was seen."""

    def get(self, call: Callable[[], _Result]) -> _Result:
        """Until it is answered. Raises what is no passing error."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return call()
            except APIConnectionError as error:
                failure: Exception = error
            except APIStatusError as error:
                self.statuses[error.status_code] = self.statuses.get(error.status_code, 0) + 1
                if error.status_code not in _PASSING:
                    raise
                failure = error
            if self._stop.wait(pause) or time.monotonic() > deadline:
                raise GivenUp(repr(failure)) from failure
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def remove(self, call: Callable[[], object]) -> None:
        """What an attempt deleted whose answer was lost is not found by the next."""
        try:
            self.get(call)
        except NotFoundError:
            return


def once(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


def is_gone(client: OpenAI, persistence: Persistence, id: str) -> bool:
    look = client.batches.retrieve if id.startswith("batch") else client.files.retrieve
    try:
        persistence.get(lambda: look(id))
    except NotFoundError:
        return True
    return False
