"""The HTTP client for all upstreams, which chats and batches share: which of them is asked."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import aiohttp

from batch_api.lookups import Lookups
from batch_api.schemas.priority import PRIORITY_HEADER
from batch_api.schemas.replies import Said, said
from batch_api.standing import Visit
from batch_api.unusable import (
    TooLate,
    UpstreamAway,
    UpstreamBroke,
    UpstreamTimedOut,
    UpstreamUnreachable,
    UpstreamUnusable,
)
from batch_api.upstream import (
    OVERLOADED,
    Answer,
    Call,
    Patience,
    Upstream,
    connections_noted,
)
from batch_api.waiting import wait

_CONNECT_SECONDS = 5
_IDLE_SECONDS = 30
_READ_BYTES = 16 * 1024  # beyond it a stream waits for its client, not in our memory
_LOOK_SECONDS = 1.0
_MIB = 1024 * 1024

_ASK_ANOTHER = (HTTPStatus.NOT_FOUND, *OVERLOADED)
"""Another upstream may have that model or that route, or a place in its queue."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer, of any status."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    said: Said | None
    """None if it makes no sense: it is no JSON object, or a 200 without an answer in it."""
    had_company: bool = False
    """Other requests were at the upstream meanwhile."""


@dataclass(frozen=True, slots=True)
class Models:
    """The model objects of the upstreams that tell theirs, each id once: as one that is ready."""

    objects: list[dict[str, Any]]
    are_all: bool
    """Whether every upstream told."""

    @property
    def ready(self) -> list[dict[str, Any]]:
        """Those that can be asked something now, as far as is known."""
        return [model for model in self.objects if _is_ready(model)]

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(model["id"] for model in self.objects)


@dataclass(frozen=True, slots=True)
class Facts:
    """How an upstream stands."""

    url: str
    is_up: bool
    is_starting: bool
    """We have just started it, and it has not answered since."""
    in_flight: int
    limit: int
    """Of requests of batches at once."""
    is_on_trial: bool
    """It was down, and a request of a batch is finding out whether it works again."""
    rest_seconds: float
    """Until it is asked again."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What a request of a batch waits for; a single request waits for none."""

    suspicion: int
    may_go: Callable[[], bool]
    """Whether it shall still go."""

    def check(self) -> None:
        """Raises TooLate."""
        if not self.may_go():
            raise TooLate("It is too late to ask an upstream")


class Upstreams:
    """Sends each request to the least busy upstream of those that can be asked."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        timeout_seconds: float,
        most_in_flight: int = 128,
        max_answer_bytes: int = 64 * _MIB,
        are_starting: bool = False,
    ) -> None:
        """`most_in_flight`: requests of batches at one upstream; single requests always go.

        `are_starting`: somebody has just started them, and they may take a while.
        """
        assert urls, "an upstream is needed"
        self._whole = aiohttp.ClientTimeout(total=timeout_seconds, connect=_CONNECT_SECONDS)
        self._streaming = aiohttp.ClientTimeout(
            total=None, connect=_CONNECT_SECONDS, sock_read=timeout_seconds
        )
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, keepalive_timeout=_IDLE_SECONDS, resolver=Lookups()
            ),
            read_bufsize=_READ_BYTES,
            cookie_jar=aiohttp.DummyCookieJar(),  # one client's are not for another
            trace_configs=[connections_noted()],
        )
        patience = Patience(seconds=timeout_seconds, bytes=max_answer_bytes)
        self._upstreams = [
            Upstream(
                url,
                self._session,
                most_in_flight=most_in_flight,
                patience=patience,
                is_starting=are_starting,
            )
            for url in urls
        ]
        self._waiting = {upstream: Counter[int]() for upstream in self._upstreams}
        """Requests of batches without a place that it might give them, by their suspicion."""
        self._vacated = asyncio.Event()

    async def close(self) -> None:
        await self._session.close()

    @property
    def urls(self) -> list[str]:
        """Of the servers themselves, without `/v1`; there may be a password in them."""
        return [upstream.url for upstream in self._upstreams]

    @property
    def longest_rest_seconds(self) -> float:
        """Until all of them can be asked again."""
        return max(map(_rest_seconds, self._upstreams))

    @property
    def _shortest_rest(self) -> float:
        return min(map(_rest_seconds, self._upstreams))

    @property
    def _look_seconds(self) -> float:
        """Until the next one ends its rest, but not for long."""
        rests = [each.rest_seconds for each in self._upstreams if each.is_resting]
        return min([*rests, _LOOK_SECONDS])

    @property
    def are_starting(self) -> bool:
        """None has answered since they were started."""
        return all(upstream.is_starting for upstream in self._upstreams)

    @property
    def are_busy(self) -> bool:
        """One is at work on a request, for all that is known."""
        return any(upstream.standing.is_at_work for upstream in self._upstreams)

    def count(self, *, up: bool) -> int:
        """Of those that answer, as far as is known; or of the others."""
        return sum(upstream.is_up == up for upstream in self._upstreams)

    def facts(self) -> list[Facts]:
        return [
            Facts(
                url=each.shown,
                is_up=each.is_up,
                is_starting=each.is_starting,
                in_flight=each.standing.in_flight,
                limit=each.standing.width,
                is_on_trial=each.standing.is_on_trial,
                rest_seconds=each.rest_seconds,
            )
            for each in self._upstreams
        ]

    @asynccontextmanager
    async def open(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str] = {}
    ) -> AsyncIterator[Answer]:
        """The answer to a single request, its body yet to be read.

        Raises UpstreamUnreachable, UpstreamAway, and UpstreamBroke, also while the body is read.
        """
        answer = await self._ask(Call(method, path, body, headers, self._streaming), None)
        try:
            yield answer
            answer.note()
        finally:
            self._leave(answer)

    async def send(
        self,
        path: str,
        body: bytes,
        *,
        priority: str,
        request_id: str,
        may_go: Callable[[], bool],
        suspicion: int = 0,
    ) -> Reply:
        """POST a request of a batch once there is a place for it, and read the whole answer.

        Raises UpstreamUnreachable, UpstreamAway, UpstreamBroke, and TooLate if it may not go any
        more before there is one.
        """
        headers = {PRIORITY_HEADER: priority, "x-request-id": request_id}
        answer = await self._ask(
            Call("POST", path, body, headers, self._whole), Turn(suspicion, may_go)
        )
        try:
            content = await answer.read()
            told = said(content)
            if answer.status == HTTPStatus.OK and told and not told.answers(path):
                told = None
            answer.note(makes_sense=told is not None or answer.status != HTTPStatus.OK)
            return Reply(answer.status, answer.headers, content, told, answer.visit.had_company)
        finally:
            self._leave(answer)

    def wake(self) -> None:
        """Who waits for a place looks whether it shall still go."""
        self._vacated.set()

    async def models(self) -> Models:
        """Raises UpstreamUnusable if no upstream answers."""
        results = await asyncio.gather(*map(_models_or_failure, self._upstreams))
        failures = [result for result in results if isinstance(result, UpstreamUnusable)]
        if len(failures) == len(results):
            raise failures[0]
        told = [result for result in results if isinstance(result, list)]
        every = sorted((model for models in told for model in models), key=_is_ready)
        by_id = {model["id"]: model for model in every}
        return Models(list(by_id.values()), are_all=len(told) == len(results))

    async def statuses(self, path: str) -> list[int | None]:
        """What each upstream answers to a POST of an empty object; None if it doesn't answer."""
        return await asyncio.gather(*(each.status_of_empty(path) for each in self._upstreams))

    async def _ask(self, call: Call, turn: Turn | None) -> Answer:
        """Until one takes the request.

        The answer may be a refusal, if all agree on it; then its body is read already.
        """
        asked: list[Upstream] = []
        refusals: list[Answer] = []
        is_second_try = False
        while (upstream := await self._next(asked, turn)) is not None:
            asked.append(upstream)
            try:
                answer = await self._ask_one(upstream, call, turn)
            except UpstreamUnreachable:
                continue
            except UpstreamBroke as error:
                if turn or is_second_try or not _may_repeat(error):
                    raise
                is_second_try = True
                asked.clear()
                continue
            if answer.status not in _ASK_ANOTHER:
                return answer
            refusals.append(answer)
        return self._refusal_of_all(refusals)

    async def _ask_one(self, upstream: Upstream, call: Call, turn: Turn | None) -> Answer:
        """The body of a refusal is read already. Raises UpstreamUnusable."""
        suspicion = turn.suspicion if turn else 0
        visit = upstream.standing.begin(suspicion=suspicion, is_batch=turn is not None)
        answer: Answer | None = None
        try:
            if upstream.standing.needs_proof:
                await self._prove(upstream, visit, turn)
            answer = await upstream.ask(call, visit)
            if answer.status in _ASK_ANOTHER:
                await answer.read()
                answer.note()
                self._leave(answer)
        except BaseException:
            self._vacate(upstream, visit)
            raise
        return answer

    async def _prove(self, upstream: Upstream, visit: Visit, turn: Turn | None) -> None:
        """Raises UpstreamUnreachable, and TooLate; the next request proves it anew then."""
        await upstream.prove(visit)
        if turn is None:
            return
        try:
            turn.check()
        except TooLate:
            upstream.standing.doubt()
            raise

    def _refusal_of_all(self, refusals: list[Answer]) -> Answer:
        """That nobody has a model is believed when everybody says so."""
        lacking = sum(answer.status == HTTPStatus.NOT_FOUND for answer in refusals)
        if 0 < lacking < len(self._upstreams):
            raise UpstreamAway("Not every upstream can be asked for it now")
        if not refusals:
            rest = self._shortest_rest or _LOOK_SECONDS  # one may be on trial
            raise UpstreamUnreachable("No upstream can be reached", rest)
        return refusals[-1]

    async def _next(self, asked: Sequence[Upstream], turn: Turn | None) -> Upstream | None:
        """The one to ask now; a request of a batch waits until one admits it. None: all are asked.

        Raises TooLate.
        No other task runs between the choice and the caller's next step.
        """
        while askable := self._askable(asked, turn):
            if turn is not None:
                turn.check()
            admitting = self._admitting(askable, turn)
            if admitting:
                return min(admitting, key=_in_flight)
            assert turn is not None
            await self._vacancy(askable, turn)
        return None

    def _askable(self, asked: Sequence[Upstream], turn: Turn | None) -> list[Upstream]:
        """Those that don't rest; for a single request else the one that wakes first.

        A request of a batch that was turned away elsewhere does not wait for one on trial either:
        if that one hangs, requests for others would find no lane.
        """
        awake = [upstream for upstream in self._upstreams if not upstream.is_resting]
        if awake or asked:
            spare = turn is not None and bool(asked)
            return [
                upstream
                for upstream in awake
                if upstream not in asked and not (spare and upstream.standing.is_on_trial)
            ]
        if turn is None:
            return [min(self._upstreams, key=_rest_seconds)]
        raise UpstreamUnreachable("All upstreams rest", self._shortest_rest)

    def _admitting(self, askable: list[Upstream], turn: Turn | None) -> list[Upstream]:
        """Nobody overtakes who is more suspicious: that one may be waiting to be alone."""
        if turn is None:
            return askable
        return [
            upstream
            for upstream in askable
            if max(self._waiting[upstream], default=0) <= turn.suspicion
            and upstream.standing.admits(turn.suspicion)
        ]

    async def _vacancy(self, askable: list[Upstream], turn: Turn) -> None:
        """Or until a rest may be over."""
        for upstream in askable:
            self._waiting[upstream][turn.suspicion] += 1
        self._vacated.clear()
        try:
            await wait(self._vacated, self._look_seconds)
        finally:
            for upstream in askable:
                self._waiting[upstream][turn.suspicion] -= 1
                self._waiting[upstream] += Counter()  # without what is at zero

    def _leave(self, answer: Answer) -> None:
        answer.close()
        self._vacate(answer.upstream, answer.visit)

    def _vacate(self, upstream: Upstream, visit: Visit) -> None:
        upstream.standing.end(visit)
        self._vacated.set()


async def _models_or_failure(upstream: Upstream) -> list[dict[str, Any]] | UpstreamUnusable | None:
    try:
        return await upstream.models()
    except UpstreamUnusable as failure:
        return failure


def _is_ready(model: Mapping[str, Any]) -> bool:
    """Our own workers say when they are not."""
    return model.get("ready") is not False


def _may_repeat(error: UpstreamBroke) -> bool:
    """Nothing of an answer had come: an idle connection was closed, or who stands between us."""
    return not error.had_begun and not isinstance(error, UpstreamTimedOut)


def _in_flight(upstream: Upstream) -> int:
    return upstream.standing.in_flight


def _rest_seconds(upstream: Upstream) -> float:
    return upstream.rest_seconds
