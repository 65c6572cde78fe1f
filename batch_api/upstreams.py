"""The HTTP client for all upstreams, which chats and batches share: which of them is asked."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import aiohttp
import msgspec

from batch_api.schemas.bad_json import BAD_JSON
from batch_api.schemas.priority import PRIORITY_HEADER
from batch_api.standing import Visit
from batch_api.upstream import (
    HTTP_ERRORS,
    OVERLOADED,
    Call,
    Upstream,
    UpstreamAway,
    UpstreamUnreachable,
    UpstreamUnusable,
)

_CONNECT_SECONDS = 5
_IDLE_SECONDS = 30
_SOON = aiohttp.ClientTimeout(total=5)
"""For what needs no thinking."""

_ASK_ANOTHER = (HTTPStatus.NOT_FOUND, *OVERLOADED)
"""Another upstream may have that model or that route, or a place in its queue."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer, of any status."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    had_company: bool = False
    """Other requests were at the upstream meanwhile."""


class _ModelList(msgspec.Struct):
    """The answer of `GET /v1/models`."""

    data: list[dict[str, Any]]


_decode_models = msgspec.json.Decoder(_ModelList).decode


@dataclass(frozen=True, slots=True)
class Models:
    """The model objects of the upstreams that tell theirs, each id once."""

    objects: list[dict[str, Any]]
    are_all: bool
    """Whether every upstream told."""

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(model["id"] for model in self.objects)


class Upstreams:
    """Sends each request to the least busy upstream of those that can be asked."""

    def __init__(
        self, urls: Sequence[str], *, timeout_seconds: float, most_in_flight: int = 128
    ) -> None:
        """`most_in_flight`: requests of batches at one upstream; single requests always go."""
        assert urls, "an upstream is needed"
        self._whole = aiohttp.ClientTimeout(total=timeout_seconds, connect=_CONNECT_SECONDS)
        self._streaming = aiohttp.ClientTimeout(
            total=None, connect=_CONNECT_SECONDS, sock_read=timeout_seconds
        )
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS)
        )
        self._upstreams = [
            Upstream(url, self._session, most_in_flight=most_in_flight) for url in urls
        ]
        self._waiting: Counter[int] = Counter()
        """Requests of batches without a place, by their suspicion."""
        self._vacated = asyncio.Event()

    async def close(self) -> None:
        await self._session.close()

    @property
    def longest_rest_seconds(self) -> float:
        """Until all of them can be asked again."""
        wakes = max(upstream.standing.rests_until for upstream in self._upstreams)
        return max(wakes - time.monotonic(), 0.0)

    @asynccontextmanager
    async def open(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str] = {}
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to a single request, its body yet to be read.

        Raises UpstreamUnreachable, UpstreamAway, and UpstreamBroke, also while the body is read.
        """
        call = Call(method, path, body, headers, self._streaming)
        upstream, visit, response = await self._ask(call, None)
        try:
            yield response
        except HTTP_ERRORS as error:
            raise upstream.unusable(error, visit) from error
        finally:
            response.close()
            self._leave(upstream, visit)

    async def send(
        self, path: str, body: bytes, *, priority: str, request_id: str, suspicion: int = 0
    ) -> Reply:
        """POST a request of a batch once there is a place for it, and read the whole answer.

        Raises UpstreamUnreachable, UpstreamAway and UpstreamBroke.
        """
        headers = {PRIORITY_HEADER: priority, "x-request-id": request_id}
        call = Call("POST", path, body, headers, self._whole)
        upstream, visit, response = await self._ask(call, suspicion)
        try:
            content = await upstream.read(response, visit)
            return Reply(response.status, response.headers, content, visit.had_company)
        finally:
            response.close()
            self._leave(upstream, visit)

    async def models(self) -> Models:
        """Raises UpstreamUnusable if no upstream answers."""
        results = await asyncio.gather(*map(self._models_or_failure, self._upstreams))
        failures = [result for result in results if isinstance(result, UpstreamUnusable)]
        if len(failures) == len(results):
            raise failures[0]
        told = [result for result in results if isinstance(result, list)]
        by_id = {model["id"]: model for models in told for model in models}
        return Models(list(by_id.values()), are_all=len(told) == len(results))

    async def statuses(self, path: str) -> list[int | None]:
        """What each upstream answers to a POST of an empty object; None if it doesn't answer."""
        return await asyncio.gather(*(self._status_of(each, path) for each in self._upstreams))

    async def _status_of(self, upstream: Upstream, path: str) -> int | None:
        visit = upstream.standing.begin(is_batch=False)
        try:
            response = await upstream.ask(Call("POST", path, b"{}", {}, _SOON), visit)
            response.close()
        except UpstreamUnusable:
            return None
        finally:
            self._leave(upstream, visit)
        return response.status

    async def _models_or_failure(
        self, upstream: Upstream
    ) -> list[dict[str, Any]] | UpstreamUnusable | None:
        """None: it answers, but does not tell its models."""
        visit = upstream.standing.begin(is_batch=False)
        try:
            response = await upstream.ask(Call("GET", "/v1/models", b"", {}, _SOON), visit)
            with closing(response):
                body = await upstream.read(response, visit)
        except UpstreamUnusable as failure:
            return failure
        finally:
            self._leave(upstream, visit)
        upstream.note(response.status, response.headers, visit)
        if response.status in OVERLOADED or response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return UpstreamUnusable(f"{upstream.url} answers {response.status}")
        return _models(body) if response.status == HTTPStatus.OK else None

    async def _ask(
        self, call: Call, suspicion: int | None
    ) -> tuple[Upstream, Visit, aiohttp.ClientResponse]:
        """Until one takes the request. `suspicion`: None for a single request.

        The answer may be a refusal, if all agree on it; then its body is read already.
        """
        asked: list[Upstream] = []
        refusals: list[tuple[Upstream, Visit, aiohttp.ClientResponse]] = []
        while (upstream := await self._next(asked, suspicion)) is not None:
            asked.append(upstream)
            visit = upstream.standing.begin(
                suspicion=suspicion or 0, is_batch=suspicion is not None
            )
            try:
                response = await upstream.ask(call, visit)
                upstream.note(response.status, response.headers, visit)
                if response.status not in _ASK_ANOTHER:
                    return upstream, visit, response
                await upstream.read(response, visit)  # not closed, or it can't be read again
            except UpstreamUnreachable:
                self._leave(upstream, visit)
                continue
            except BaseException:
                self._leave(upstream, visit)
                raise
            self._leave(upstream, visit)
            refusals.append((upstream, visit, response))
        return self._refusal_of_all(refusals)

    def _refusal_of_all(
        self, refusals: list[tuple[Upstream, Visit, aiohttp.ClientResponse]]
    ) -> tuple[Upstream, Visit, aiohttp.ClientResponse]:
        """That nobody has a model is believed when everybody says so."""
        lacking = sum(response.status == HTTPStatus.NOT_FOUND for _, _, response in refusals)
        if 0 < lacking < len(self._upstreams):
            raise UpstreamAway("Not every upstream can be asked for it now")
        if not refusals:
            raise UpstreamUnreachable("No upstream can be reached")
        return refusals[-1]

    async def _next(self, asked: Sequence[Upstream], suspicion: int | None) -> Upstream | None:
        """The one to ask now; a request of a batch waits until one admits it. None: all are asked.

        No other task runs between the choice and the caller's next step.
        """
        while askable := self._askable(asked):
            admitting = self._admitting(askable, suspicion)
            if admitting:
                return min(admitting, key=_in_flight)
            assert suspicion is not None
            await self._vacancy(suspicion)
        return None

    def _askable(self, asked: Sequence[Upstream]) -> list[Upstream]:
        """Those that don't rest; or else the one that wakes first."""
        awake = [upstream for upstream in self._upstreams if not upstream.is_resting]
        if not awake and not asked:
            return [min(self._upstreams, key=_rests_until)]
        return [upstream for upstream in awake if upstream not in asked]

    def _admitting(self, askable: list[Upstream], suspicion: int | None) -> list[Upstream]:
        """Nobody overtakes who is more suspicious: that one may be waiting to be alone."""
        if suspicion is None:
            return askable
        if self._waiting and max(self._waiting) > suspicion:
            return []
        return [upstream for upstream in askable if upstream.standing.admits(suspicion)]

    async def _vacancy(self, suspicion: int) -> None:
        self._waiting[suspicion] += 1
        self._vacated.clear()
        try:
            await self._vacated.wait()
        finally:
            self._waiting[suspicion] -= 1
            self._waiting += Counter()  # without what is at zero

    def _leave(self, upstream: Upstream, visit: Visit) -> None:
        upstream.standing.end(visit)
        if self._waiting:
            self._vacated.set()


def _models(body: bytes) -> list[dict[str, Any]] | None:
    try:
        models = _decode_models(body).data
    except BAD_JSON:
        return None
    return [model for model in models if isinstance(model.get("id"), str)]


def _in_flight(upstream: Upstream) -> int:
    return upstream.standing.in_flight


def _rests_until(upstream: Upstream) -> float:
    return upstream.standing.rests_until
