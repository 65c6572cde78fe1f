"""The HTTP client for upstreams: base URLs that speak OpenAI. Chat and batches share it."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

PRIORITY_HEADER = "x-batch-api-priority"
"""`batch` or `interactive` (the default): our workers run interactive requests first."""

_CONNECT_SECONDS = 5
_IDLE_SECONDS = 30


class UpstreamUnreachable(Exception):
    """No connection could be made: nothing was sent."""


class UpstreamBroke(Exception):
    """The connection broke, or the time was over, after the request had been sent."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer, of any status."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Models(msgspec.Struct):
    """The answer of `GET /v1/models`."""

    data: list[dict[str, Any]]

    @classmethod
    def data_of(cls, body: bytes) -> list[dict[str, Any]]:
        return msgspec.json.decode(body, type=cls).data


class Upstream:
    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self.in_flight = 0


class Upstreams:
    """Sends each request to the upstream with the fewest in flight."""

    def __init__(self, urls: Sequence[str], *, timeout_seconds: float) -> None:
        assert urls, "an upstream is needed"
        self._upstreams = [Upstream(url) for url in urls]
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS),
            timeout=aiohttp.ClientTimeout(
                total=None, connect=_CONNECT_SECONDS, sock_read=timeout_seconds
            ),
        )
        self._timeout_seconds = timeout_seconds

    async def close(self) -> None:
        await self._session.close()

    @asynccontextmanager
    async def open(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str] = {}
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer of the least busy upstream, its body yet to be read.

        Raises UpstreamUnreachable and UpstreamBroke, the latter also while the body is read.
        """
        upstream = min(self._upstreams, key=lambda upstream: upstream.in_flight)
        async with self._open(upstream, method, path, body=body, headers=headers) as response:
            yield response

    async def send(self, path: str, body: bytes, *, priority: str, request_id: str) -> Reply:
        """POST and read the whole answer. Raises UpstreamUnreachable and UpstreamBroke."""
        headers = {PRIORITY_HEADER: priority, "x-request-id": request_id}
        try:
            async with (
                asyncio.timeout(self._timeout_seconds),
                self.open("POST", path, body=body, headers=headers) as response,
            ):
                return Reply(response.status, response.headers, await response.read())
        except TimeoutError as error:
            raise UpstreamBroke(f"no answer within {self._timeout_seconds:g} s") from error

    async def models(self) -> list[dict[str, Any]]:
        """The model objects of all upstreams that answer, each id once.

        Raises UpstreamUnreachable or UpstreamBroke if none answers.
        """
        results = await asyncio.gather(
            *(self._models_of(upstream) for upstream in self._upstreams), return_exceptions=True
        )
        answers = [result for result in results if isinstance(result, list)]
        if not answers:
            raise next(result for result in results if isinstance(result, BaseException))
        return list({model["id"]: model for models in answers for model in models}.values())

    async def _models_of(self, upstream: Upstream) -> list[dict[str, Any]]:
        async with self._open(upstream, "GET", "/v1/models") as response:
            try:
                return _Models.data_of(await response.read())
            except msgspec.DecodeError as error:
                raise UpstreamBroke(f"{upstream.url} lists no models") from error

    @asynccontextmanager
    async def _open(
        self,
        upstream: Upstream,
        method: str,
        path: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] = {},
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        upstream.in_flight += 1
        try:
            async with self._session.request(
                method,
                upstream.url + path,
                data=body or None,
                headers={"content-type": "application/json", **headers},
                allow_redirects=False,
            ) as response:
                yield response
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise UpstreamUnreachable(f"{upstream.url} can't be reached") from error
        except aiohttp.SocketTimeoutError as error:
            raise UpstreamBroke(f"{upstream.url} went silent") from error
        except aiohttp.ClientError as error:
            raise UpstreamBroke(f"{upstream.url} broke off: {error!r}") from error
        finally:
            upstream.in_flight -= 1
