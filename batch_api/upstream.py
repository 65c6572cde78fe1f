"""The HTTP client for upstreams: base URLs that speak OpenAI. Chat and batches share it."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from math import isfinite
from typing import Any

import aiohttp
import msgspec

from batch_api.schemas.priority import PRIORITY_HEADER

_CONNECT_SECONDS = 5
_IDLE_SECONDS = 30
_REST_SECONDS = 1
_MOST_REST_SECONDS = 120.0
_SOON = aiohttp.ClientTimeout(total=5)
"""For what needs no thinking."""

_OVERLOADED = (429, 503)
_ASK_ANOTHER = (404, *_OVERLOADED)
"""Another upstream may have that model or that route, or a place in its queue."""


class UpstreamUnusable(Exception):
    """An upstream gave no whole answer."""


class UpstreamUnreachable(UpstreamUnusable):
    """No connection could be made: nothing was sent."""


class UpstreamBroke(UpstreamUnusable):
    """The connection broke, or the time was over, after the request had been sent."""


class UpstreamTimedOut(UpstreamBroke):
    """The time was over."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer, of any status."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Models(msgspec.Struct):
    """The answer of `GET /v1/models`."""

    data: list[dict[str, Any]]


_decode_models = msgspec.json.Decoder(_Models).decode


@dataclass(frozen=True, slots=True)
class Models:
    """The model objects of the upstreams that answered, each id once."""

    objects: list[dict[str, Any]]
    are_all: bool
    """Whether every upstream answered."""

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(model["id"] for model in self.objects)


class Upstream:
    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self.in_flight = 0
        self.rests_until = 0.0
        """Monotonic: not asked before this if another can be."""


class Upstreams:
    """Sends each request to the least busy upstream of those that can be reached."""

    def __init__(self, urls: Sequence[str], *, timeout_seconds: float) -> None:
        assert urls, "an upstream is needed"
        self._upstreams = [Upstream(url) for url in urls]
        self._whole = aiohttp.ClientTimeout(total=timeout_seconds, connect=_CONNECT_SECONDS)
        self._streaming = aiohttp.ClientTimeout(
            total=None, connect=_CONNECT_SECONDS, sock_read=timeout_seconds
        )
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS)
        )

    async def close(self) -> None:
        await self._session.close()

    @asynccontextmanager
    async def open(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str] = {}
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer, its body yet to be read.

        Raises UpstreamUnreachable if no upstream can be reached, and UpstreamBroke, the latter
        also while the body is read.
        """
        call = _Call(method, path, body, headers, self._streaming)
        upstream, response = await self._reach_one(call)
        try:
            with _errors_as_ours(upstream):
                yield response
        finally:
            response.close()
            upstream.in_flight -= 1

    async def send(self, path: str, body: bytes, *, priority: str, request_id: str) -> Reply:
        """POST and read the whole answer. Raises UpstreamUnreachable and UpstreamBroke."""
        headers = {PRIORITY_HEADER: priority, "x-request-id": request_id}
        upstream, response = await self._reach_one(_Call("POST", path, body, headers, self._whole))
        try:
            with _errors_as_ours(upstream):
                return Reply(response.status, response.headers, await response.read())
        finally:
            response.close()
            upstream.in_flight -= 1

    async def models(self) -> "Models":
        """Raises UpstreamUnusable if no upstream answers."""
        results = await asyncio.gather(
            *(self._models_of(upstream) for upstream in self._upstreams), return_exceptions=True
        )
        lists = [result for result in results if isinstance(result, list)]
        failures = [result for result in results if isinstance(result, BaseException)]
        if not lists:
            raise failures[0]
        by_id = {model["id"]: model for models in lists for model in models}
        return Models(list(by_id.values()), are_all=not failures)

    async def statuses(self, path: str) -> list[int | None]:
        """What each upstream answers to a POST of an empty object; None if it doesn't answer."""
        return await asyncio.gather(
            *(self._status_of(upstream, path) for upstream in self._upstreams)
        )

    async def _status_of(self, upstream: Upstream, path: str) -> int | None:
        try:
            response = await self._reach(upstream, _Call("POST", path, b"{}", {}, _SOON))
        except UpstreamUnusable:
            return None
        response.close()
        upstream.in_flight -= 1
        return response.status

    async def _models_of(self, upstream: Upstream) -> list[dict[str, Any]]:
        response = await self._reach(upstream, _Call("GET", "/v1/models", b"", {}, _SOON))
        try:
            with _errors_as_ours(upstream):
                models = _decode_models(await response.read()).data
        except msgspec.DecodeError as error:
            raise UpstreamBroke(f"{upstream.url} lists no models") from error
        finally:
            response.close()
            upstream.in_flight -= 1
        return [model for model in models if isinstance(model.get("id"), str)]

    async def _reach_one(self, call: "_Call") -> tuple[Upstream, aiohttp.ClientResponse]:
        """The least busy upstream that takes the request, and the beginning of its answer."""
        untried = self._awake()
        while True:
            upstream = min(untried, key=_load)
            untried.remove(upstream)
            try:
                response = await self._reach(upstream, call)
            except UpstreamUnreachable:
                if not untried:
                    raise
                continue
            if response.status in _OVERLOADED:
                rest_seconds = retry_after_seconds(response.headers) or _REST_SECONDS
                upstream.rests_until = time.monotonic() + rest_seconds
            if response.status not in _ASK_ANOTHER or not untried:
                return upstream, response
            response.close()
            upstream.in_flight -= 1

    def _awake(self) -> list[Upstream]:
        """Those that don't rest; or else the one that wakes first."""
        now = time.monotonic()
        awake = [upstream for upstream in self._upstreams if upstream.rests_until <= now]
        return awake or [min(self._upstreams, key=lambda upstream: upstream.rests_until)]

    async def _reach(self, upstream: Upstream, call: "_Call") -> aiohttp.ClientResponse:
        """If it returns, the request counts as in flight until the caller says otherwise."""
        upstream.in_flight += 1
        try:
            with _errors_as_ours(upstream):
                return await self._session.request(
                    call.method,
                    upstream.url + call.path,
                    data=call.body or None,
                    headers={"content-type": "application/json", **call.headers},
                    allow_redirects=False,
                    timeout=call.timeout,
                )
        except BaseException:
            upstream.in_flight -= 1
            raise


@dataclass(frozen=True, slots=True)
class _Call:
    method: str
    path: str
    body: bytes
    headers: Mapping[str, str]
    timeout: aiohttp.ClientTimeout


def _load(upstream: Upstream) -> int:
    return upstream.in_flight


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """What the upstream wishes, within reason; a date, or nonsense, counts as not given."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return min(max(seconds, 0.0), _MOST_REST_SECONDS) if isfinite(seconds) else None


@contextmanager
def _errors_as_ours(upstream: Upstream) -> Iterator[None]:
    try:
        yield
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        upstream.rests_until = time.monotonic() + _REST_SECONDS
        raise UpstreamUnreachable(f"{upstream.url} can't be reached") from error
    except TimeoutError as error:
        raise UpstreamTimedOut(f"{upstream.url} did not answer in time") from error
    except aiohttp.ClientError as error:
        raise UpstreamBroke(f"{upstream.url} broke off: {error!r}") from error
