"""One upstream: a base URL that speaks OpenAI, what can go wrong there, and how it stands."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from math import isfinite

import aiohttp

from batch_api.standing import Standing, Visit

OVERLOADED = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
GATEWAY_BROKE = (HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT)
"""Who stands between us and the model says that it broke off there."""

HTTP_ERRORS = (aiohttp.ClientError, TimeoutError)
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
        """The answer, its body yet to be read. Raises UpstreamUnusable."""
        try:
            return await self._session.request(
                call.method,
                self.url + call.path,
                data=call.body or None,
                headers={"content-type": "application/json", **call.headers},
                allow_redirects=False,
                timeout=call.timeout,
            )
        except HTTP_ERRORS as error:
            raise self.unusable(error, visit) from error

    async def read(self, response: aiohttp.ClientResponse, visit: Visit) -> bytes:
        """The body of an answer. Raises UpstreamBroke."""
        try:
            return await response.read()
        except HTTP_ERRORS as error:
            raise self.unusable(error, visit) from error

    def unusable(self, error: Exception, visit: Visit) -> UpstreamUnusable:
        """One of HTTP_ERRORS as one of ours; it is remembered."""
        company = visit.had_company
        if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
            self.standing.rest(_REST_SECONDS)
            return UpstreamUnreachable(f"{self.url} can't be reached")
        if isinstance(error, TimeoutError):
            self.standing.was_slow(visit)
            return UpstreamTimedOut(f"{self.url} did not answer in time", had_company=company)
        self.standing.failed(visit)
        return UpstreamBroke(f"{self.url} broke off: {error!r}", had_company=company)

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
