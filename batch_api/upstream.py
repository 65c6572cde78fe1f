"""One upstream: a base URL that speaks OpenAI, what can go wrong there, and how it stands."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from math import isfinite
from types import SimpleNamespace
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp

from batch_api.schemas.replies import model_objects
from batch_api.standing import Standing, Visit
from batch_api.unusable import (
    AnswerTooLarge,
    UpstreamBroke,
    UpstreamTimedOut,
    UpstreamUnreachable,
    UpstreamUnusable,
)

log = logging.getLogger(__name__)

OVERLOADED = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
GATEWAY_BROKE = (HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT)
"""Who stands between us and the model says that it broke off there."""

_SOON_SECONDS = 5
"""For what needs no thinking."""

_REST_SECONDS = 1.0
_MOST_REST_SECONDS = 120.0
_MODELS_BYTES = 4 * 1024 * 1024
"""Of a list of models: tens of thousands of them."""
_PIECE_BYTES = 16 * 1024  # of a stream: what waits for a client that takes nothing


class _TooLarge(Exception):
    pass


_Bytes = TypeVar("_Bytes", bytes, bytearray)

_TROUBLES = (aiohttp.ClientError, TimeoutError, _TooLarge)


@dataclass(frozen=True, slots=True)
class Call:
    method: str
    path: str
    body: bytes
    headers: Mapping[str, str]
    timeout: aiohttp.ClientTimeout


@dataclass(frozen=True, slots=True)
class Patience:
    """With answers that are read whole."""

    seconds: float
    bytes: int


class Upstream:
    def __init__(
        self,
        url: str,
        session: aiohttp.ClientSession,
        *,
        most_in_flight: int,
        patience: Patience,
        is_starting: bool = False,
    ) -> None:
        """`is_starting`: nobody need be told that it doesn't answer yet."""
        self.url = url.rstrip("/").removesuffix("/v1")
        self.shown = without_userinfo(self.url)
        """Its URL, for operators; to tenants it is just the upstream."""
        self.standing = Standing(most=most_in_flight)
        self.is_starting = is_starting
        """It has not answered since."""
        self.is_up = not is_starting
        """As far as is known."""
        self._session = session
        self._patience = patience
        self._soon = aiohttp.ClientTimeout(total=min(patience.seconds, _SOON_SECONDS))
        self._told_models = False

    async def ask(self, call: Call, visit: Visit) -> "Answer":
        """The answer, its body yet to be read. Raises UpstreamUnreachable and UpstreamBroke."""
        try:
            response = await self._request(call, visit)
        except _TROUBLES as error:
            raise self.unusable(error, visit, had_begun=False) from error
        return Answer(response, self, visit, self._patience)

    async def prove(self, visit: Visit) -> None:
        """That somebody is there, by a question that needs no thinking, instead of by a request.

        Of one that never told its models any answer will do. Raises UpstreamUnreachable.
        """
        try:
            response, body = await self._listing()
        except UpstreamUnusable as error:
            self._failed(visit, "does not tell its models")
            raise UpstreamUnreachable(str(error)) from error
        if self._told_models and self._told_in(response, body) is None:
            if response.status == HTTPStatus.TOO_MANY_REQUESTS:
                self.standing.rest(self._rest_after_refusal(response.headers))
            else:
                self._failed(visit, "does not tell its models any more")
            raise UpstreamUnreachable(f"{self.shown} does not tell its models any more")
        self.standing.proved()

    async def models(self) -> list[dict[str, Any]] | None:
        """None: it answers, but does not tell its models. Raises UpstreamUnusable.

        Nothing follows from it for requests: it says little of whether they are answered.
        """
        response, body = await self._listing()
        if _is_passing(response.status):
            raise UpstreamUnusable(f"{self.shown} answers {response.status}")
        self._talks()
        return self._told_in(response, body)

    async def status_of_empty(self, path: str) -> int | None:
        """What it answers to a POST of an empty object; None if it doesn't answer."""
        try:
            response = await self._request(Call("POST", path, b"{}", {}, self._soon))
        except _TROUBLES as error:
            self._silent(error)
            return None
        response.close()
        return response.status

    def note(
        self, status: int, headers: Mapping[str, str], visit: Visit, *, makes_sense: bool = True
    ) -> None:
        """Remember how it answered, once the answer is whole."""
        if status in OVERLOADED:
            self.standing.rest(self._rest_after_refusal(headers))
            self.standing.refused(visit)
        elif status >= HTTPStatus.INTERNAL_SERVER_ERROR or not makes_sense:
            self._failed(visit, f"answers {status}" if makes_sense else "answers nonsense")
        elif status == HTTPStatus.NOT_FOUND:
            self._talks()
        else:
            self.standing.answered()
            self._is_there()

    @property
    def is_resting(self) -> bool:
        return self.rest_seconds > 0

    @property
    def rest_seconds(self) -> float:
        """Until it is asked again."""
        return max(self.standing.rests_until - time.monotonic(), 0.0)

    def _rest_after_refusal(self, headers: Mapping[str, str]) -> float:
        """As it wishes. If it is full of our own requests, one of them makes room."""
        wish = retry_after_seconds(headers)
        if wish is not None:
            return wish
        return 0.0 if self.standing.in_flight > 1 else _REST_SECONDS

    async def _request(self, call: Call, visit: Visit | None = None) -> aiohttp.ClientResponse:
        return await self._session.request(
            call.method,
            self.url + call.path,
            data=call.body or None,
            headers={"content-type": "application/json", **call.headers},
            allow_redirects=False,
            timeout=call.timeout,
            trace_request_ctx=visit,
        )

    async def _listing(self) -> tuple[aiohttp.ClientResponse, bytes]:
        """What it says to who asks for its models, and the whole body. Raises UpstreamUnusable."""
        try:
            response = await self._request(Call("GET", "/v1/models", b"", {}, self._soon))
            with closing(response):
                return response, await _read(response, min(self._patience.bytes, _MODELS_BYTES))
        except _TROUBLES as error:
            raise self._silent(error) from error

    def _told_in(
        self, response: aiohttp.ClientResponse, body: bytes
    ) -> list[dict[str, Any]] | None:
        models = model_objects(body) if response.status == HTTPStatus.OK else None
        self._told_models |= models is not None
        return models

    def unusable(self, error: Exception, visit: Visit, *, had_begun: bool) -> UpstreamUnusable:
        """One of _TROUBLES as one of ours; it is remembered.

        Tenants read the message of an UpstreamBroke.
        """
        if _is_unreachable(error):
            return self._silent(error)
        company = visit.had_company
        if isinstance(error, TimeoutError):
            self.standing.timed_out(visit)
            self._may_be_down("does not answer in time")
            message = "The upstream did not answer in time"
            return UpstreamTimedOut(message, had_company=company, had_begun=had_begun)
        self._failed(visit, type(error).__name__)
        if isinstance(error, _TooLarge):
            most = self._patience.bytes
            return AnswerTooLarge(f"The upstream answered with more than {most} bytes")
        message = f"The upstream broke off: {type(error).__name__}"
        return UpstreamBroke(message, had_company=company, had_begun=had_begun)

    def _silent(self, error: Exception) -> UpstreamUnusable:
        if not _is_unreachable(error):
            return UpstreamUnusable(f"{self.shown} does not tell: {type(error).__name__}")
        self.standing.rest(_REST_SECONDS)
        self._is_down("can't be reached")
        return UpstreamUnreachable(f"{self.shown} can't be reached")

    def _failed(self, visit: Visit, reason: str) -> None:
        self.standing.failed(visit)
        self._may_be_down(reason)

    def _may_be_down(self, reason: str) -> None:
        if self.standing.is_open:
            self._is_down(reason)

    def _is_down(self, reason: str) -> None:
        if self.is_up:
            log.warning("upstream is down", extra={"upstream": self.shown, "reason": reason})
        self.is_up = False

    def _talks(self) -> None:
        """What it says takes no thinking: of the troubles of requests that is no end."""
        if not self.standing.is_open:
            self._is_there()

    def _is_there(self) -> None:
        if not self.is_up:
            message = "upstream is up" if self.is_starting else "upstream is up again"
            log.info(message, extra={"upstream": self.shown})
        self.is_up, self.is_starting = True, False


class Answer:
    """An answer whose body is yet to be read: whole, or as it comes."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        upstream: Upstream,
        visit: Visit,
        patience: Patience,
    ) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.content_type = response.content_type
        self.upstream = upstream
        self.visit = visit
        self._response = response
        self._patience = patience
        self._whole: bytes | None = None

    async def read(self) -> bytes:
        """The whole body, also once more. Raises UpstreamBroke."""
        if self._whole is None:
            try:
                self._whole = await self._read()
            except _TROUBLES as error:
                raise self._broken(error) from error
        return self._whole

    async def lines(self) -> AsyncIterator[bytes]:
        """Whole lines, as many as have come; at the end what is left. Raises UpstreamBroke."""
        held: list[bytes] = []
        try:
            async for chunk in self._response.content.iter_chunked(_PIECE_BYTES):
                ended, newline, begun = chunk.rpartition(b"\n")
                if newline:
                    yield b"".join((*held, ended, newline))
                    held.clear()
                held.append(begun)
                if sum(map(len, held)) > self._patience.bytes:
                    raise _TooLarge
        except _TROUBLES as error:
            raise self._broken(error) from error
        if rest := b"".join(held):
            yield rest

    def note(self, *, makes_sense: bool = True) -> None:
        """It is whole: remember it."""
        self.upstream.note(self.status, self.headers, self.visit, makes_sense=makes_sense)

    def close(self) -> None:
        self._response.close()

    async def _read(self) -> bytes:
        content, most = self._response.content, self._patience.bytes
        if content.is_eof():  # a small answer comes at once with its head
            return _within(most, content.read_nowait())
        async with asyncio.timeout(self._patience.seconds):
            return await _read(self._response, most)

    def _broken(self, error: Exception) -> UpstreamUnusable:
        return self.upstream.unusable(error, self.visit, had_begun=True)


def connections_noted() -> aiohttp.TraceConfig:
    """For a session: visits whose requests have found a connection say so."""

    async def note(_session: aiohttp.ClientSession, context: SimpleNamespace, _facts: Any) -> None:
        visit: Visit | None = context.trace_request_ctx
        if visit is not None:
            visit.is_connected = True

    config = aiohttp.TraceConfig()
    config.on_connection_create_end.append(note)
    config.on_connection_reuseconn.append(note)
    return config


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    """Its body, decompressed as it comes."""
    body = bytearray()
    if (response.content_length or 0) > most:
        raise _TooLarge
    async for chunk in response.content.iter_any():
        body += chunk
        _within(most, body)
    return bytes(body)


def _within(most: int, body: _Bytes) -> _Bytes:
    if len(body) > most:
        raise _TooLarge
    return body


def _is_unreachable(error: Exception) -> bool:
    return isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)


def _is_passing(status: int) -> bool:
    """It may answer otherwise a little later."""
    return status in OVERLOADED or status >= HTTPStatus.INTERNAL_SERVER_ERROR


def without_userinfo(url: str) -> str:
    """A URL as it may be shown: it may have been given with a name and a password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def retry_after_seconds(
    headers: Mapping[str, str], *, most: float = _MOST_REST_SECONDS
) -> float | None:
    """What the upstream wishes, within reason; a date, or nonsense, counts as not given."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return min(max(seconds, 0.0), most) if isfinite(seconds) else None
