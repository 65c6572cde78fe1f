"""One upstream: a base URL that speaks OpenAI, what can go wrong there, and how it stands."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from math import isfinite

import aiohttp

from batch_api.standing import Standing, Visit

OVERLOADED = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
GATEWAY_BROKE = (HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT)
"""Who stands between us and the model says that it broke off there."""

_REST_SECONDS = 1.0
_MOST_REST_SECONDS = 120.0


class UpstreamUnusable(Exception):
    """An upstream gave no whole answer."""


class UpstreamUnreachable(UpstreamUnusable):
    """No connection could be made: nothing was sent."""


class UpstreamAway(UpstreamUnusable):
    """Who was asked has no such model or route, and who may have it can't be asked now."""


class UpstreamBroke(UpstreamUnusable):
    """The connection broke, or the time was over, after the request had been sent."""

    def __init__(self, message: str, *, had_company: bool = False) -> None:
        """`had_company`: other requests were there meanwhile, and one may have been the cause."""
        super().__init__(message)
        self.had_company = had_company


class UpstreamTimedOut(UpstreamBroke):
    """The time was over."""


@dataclass(frozen=True, slots=True)
class Call:
    method: str
    path: str
    body: bytes
    headers: Mapping[str, str]
    timeout: aiohttp.ClientTimeout


class Upstream:
    def __init__(self, url: str, session: aiohttp.ClientSession, *, most_in_flight: int) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self.standing = Standing(most=most_in_flight)
        self._session = session

    async def ask(self, call: Call, visit: Visit) -> aiohttp.ClientResponse:
        """The answer, its body yet to be read under `watch`. Raises UpstreamUnusable."""
        with self.watch(visit):
            return await self._session.request(
                call.method,
                self.url + call.path,
                data=call.body or None,
                headers={"content-type": "application/json", **call.headers},
                allow_redirects=False,
                timeout=call.timeout,
            )

    @contextmanager
    def watch(self, visit: Visit) -> Iterator[None]:
        """Turns aiohttp's errors into ours, and remembers them."""
        try:
            yield
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            self.standing.rest(_REST_SECONDS)
            raise UpstreamUnreachable(f"{self.url} can't be reached") from error
        except TimeoutError as error:
            self.standing.was_slow(visit)
            message = f"{self.url} did not answer in time"
            raise UpstreamTimedOut(message, had_company=visit.had_company) from error
        except aiohttp.ClientError as error:
            self.standing.failed(visit)
            message = f"{self.url} broke off: {error!r}"
            raise UpstreamBroke(message, had_company=visit.had_company) from error

    def note(self, status: int, headers: Mapping[str, str], visit: Visit) -> None:
        """Remember how it answered."""
        if status in OVERLOADED:
            self.standing.rest(retry_after_seconds(headers) or _REST_SECONDS)
        elif status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self.standing.failed(visit)
        else:
            self.standing.answered()

    @property
    def is_resting(self) -> bool:
        return self.standing.rests_until > time.monotonic()


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """What the upstream wishes, within reason; a date, or nonsense, counts as not given."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return min(max(seconds, 0.0), _MOST_REST_SECONDS) if isfinite(seconds) else None
