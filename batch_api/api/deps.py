"""What routes are given: the parts of the server, and what there is to know of the HTTP request.

Besides the error handler this is the only place that sees the HTTP request itself.
"""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Request
from prometheus_client import CollectorRegistry
from pydantic import BaseModel
from starlette.types import Receive

from batch_api.api.decoding import decoded
from batch_api.api.idempotency import Creation
from batch_api.api.incoming import Incoming
from batch_api.api.keys import InvalidKey, Keyring
from batch_api.api.quotas import Quotas
from batch_api.api.rare_routes import RareRoutes
from batch_api.api.rates import Rates
from batch_api.api.readiness import UpstreamCheck
from batch_api.api.sessions import COOKIE, Sessions
from batch_api.clock import Clock
from batch_api.disconnect import while_connected
from batch_api.envelope import parse, read_whole, too_large
from batch_api.errors import APIError
from batch_api.gate import is_from_here
from batch_api.settings import Settings
from batch_api.store import totals
from batch_api.store.blobs import Blobs
from batch_api.store.database import Database, OneTenant
from batch_api.store.tenancy import DEFAULT_TENANT
from batch_api.store.totals import Work
from batch_api.upstreams import Upstreams


class NotTheOperator(APIError):
    status = 403
    type = "permission_error"
    code = "operator_only"


@dataclass(frozen=True, slots=True, kw_only=True)
class AllParts:
    database: OneTenant
    """Whoever calls sees nothing else of the database."""
    blobs: Blobs
    upstreams: Upstreams
    rare_routes: RareRoutes
    upstream_check: UpstreamCheck
    quotas: Quotas
    settings: Settings
    clock: Clock
    ring: Callable[[], None]
    """Wakes the scheduler; only after the commit."""


@dataclass(frozen=True, slots=True)
class Call:
    """To be passed on as it is."""

    path: str
    content_type: str
    body: bytes
    request_id: str


_Model = TypeVar("_Model", bound=BaseModel)
_Result = TypeVar("_Result")


async def nobodys_parts(request: Request) -> AllParts:
    parts: AllParts = request.app.state.parts
    return parts


NobodysParts = Annotated[AllParts, Depends(nobodys_parts)]
"""For routes that need no key: of the database they see nothing."""


async def _trouble(request: Request) -> Exception | None:
    database: Database = request.app.state.database
    return database.trouble


Trouble = Annotated[Exception | None, Depends(_trouble)]
"""Why something could not be written a moment ago."""


async def _about(request: Request) -> dict[str, Any]:
    about: dict[str, Any] = request.app.state.about
    return about


About = Annotated[dict[str, Any], Depends(_about)]


async def _registry(request: Request) -> CollectorRegistry:
    registry: CollectorRegistry = request.app.state.registry
    return registry


Registry = Annotated[CollectorRegistry, Depends(_registry)]
"""What this process has counted."""


async def signed_in(
    request: Request, authorization: Annotated[str, Header(include_in_schema=False)] = ""
) -> str | None:
    """The tenant of whoever sends a key, has signed in on the dashboard, or needs neither.

    None for anybody else. Raises InvalidKey for a key that is none.
    """
    keyring: Keyring = request.app.state.keyring
    sessions: Sessions = request.app.state.sessions
    if not keyring.is_needed:
        return DEFAULT_TENANT
    if authorization:
        return _admit(request, authorization)
    key = sessions.find(session_token(request))
    if key is None:
        return None
    keyring.mark_used(key)
    return key.tenant


def session_token(request: Request) -> str:
    """Empty if there is none, or a page of others sends it."""
    return request.cookies.get(COOKIE, "") if is_from_here(request.headers) else ""


SessionToken = Annotated[str, Depends(session_token)]


def _admit(request: Request, authorization: str) -> str:
    """The tenant of whoever sends that key. Raises InvalidKey."""
    keyring: Keyring = request.app.state.keyring
    address = request.client.host if request.client else None
    return keyring.admit(authorization, address=address)


SignedIn = Annotated[str | None, Depends(signed_in)]


async def _admitted(
    request: Request,
    signed_in: SignedIn,
    authorization: Annotated[str, Header(include_in_schema=False)] = "",
) -> str:
    """The tenant. Raises InvalidKey."""
    return _admit(request, authorization) if signed_in is None else signed_in


Admitted = Annotated[str, Depends(_admitted)]


def _still_in(
    request: Request,
    tenant: Admitted,
    authorization: Annotated[str, Header(include_in_schema=False)] = "",
) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        try:
            return await signed_in(request, authorization) == tenant
        except InvalidKey:
            return False

    return look


StillIn = Annotated[Callable[[], Awaitable[bool]], Depends(_still_in)]
"""Whether whoever was let in would be let in again: for answers that go on."""


async def _operator(tenant: Admitted) -> None:
    """Raises NotTheOperator. No rate limits it: who watches asks when it is busy too."""
    if tenant != DEFAULT_TENANT:
        raise NotTheOperator("This is for keys of the tenant 'default', which is the operator's.")


async def _work_of_all(
    request: Request, parts: NobodysParts, _: Annotated[None, Depends(_operator)]
) -> Work:
    database: Database = request.app.state.database
    async with database.read() as session:
        return await totals.work(session, now=parts.clock.now())


WorkOfAll = Annotated[Work, Depends(_work_of_all)]
"""Sums over all tenants, for the operator alone."""


async def caller(request: Request, tenant: Admitted) -> str:
    """The tenant. Raises InvalidKey and TooManyRequests, before anything of the body is read."""
    rates: Rates = request.app.state.rates
    request.state.headers = rates.take(tenant)
    return tenant


def _take_more(request: Request, tenant: Annotated[str, Depends(caller)]) -> Callable[[int], None]:
    def take(count: int) -> None:
        rates: Rates = request.app.state.rates
        request.state.headers = rates.take(tenant, count)

    return take


TakeMore = Annotated[Callable[[int], None], Depends(_take_more)]
"""For a call that is many requests, how many beside the first. Raises TooManyRequests."""


async def _parts(
    request: Request, parts: NobodysParts, tenant: Annotated[str, Depends(caller)]
) -> AllParts:
    database: Database = request.app.state.database
    return replace(parts, database=database.of(tenant))


Parts = Annotated[AllParts, Depends(_parts)]


def _incoming(request: Request) -> Incoming:
    headers = request.headers
    encoding = headers.get("content-encoding", "")
    announced = "" if encoding else headers.get("content-length", "")
    return Incoming(
        content_type=headers.get("content-type", ""),
        announced_bytes=int(announced) if announced.isdecimal() else 0,
        chunks=decoded(request.stream(), encoding),
    )


IncomingBody = Annotated[Incoming, Depends(_incoming)]


async def _whole_body(incoming: IncomingBody, parts: Parts) -> bytes:
    limit = parts.settings.max_body_bytes
    if incoming.announced_bytes > limit:
        raise too_large(limit)
    return await read_whole(incoming.chunks, limit)


WholeBody = Annotated[bytes, Depends(_whole_body)]


def json_body(model: type[_Model]) -> Callable[[bytes], Awaitable[_Model]]:
    """A dependency: the body as `model`, whatever content type the client gives it."""

    async def read(body: WholeBody) -> _Model:
        return parse(model, body)

    return read


@dataclass(frozen=True, slots=True)
class Client:
    """Who waits for an answer."""

    receive: Receive

    async def wait_for(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Raises ClientDisconnect if the client goes away first."""
        return await while_connected(self.receive, work)


async def _client(request: Request) -> Client:
    return Client(request.receive)


TheClient = Annotated[Client, Depends(_client)]


def _call(request: Request, incoming: IncomingBody, body: WholeBody) -> Call:
    """Clients that send no form send JSON, whatever they call it."""
    is_form = incoming.content_type.startswith("multipart/")
    return Call(
        path=request.url.path,
        content_type=incoming.content_type if is_form else "application/json",
        body=body,
        request_id=request.state.request_id,
    )


TheCall = Annotated[Call, Depends(_call)]


def _creation(
    request: Request,
    key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            min_length=1,
            max_length=255,
            description="The same call with the same key creates nothing more for 24 hours.",
        ),
    ] = None,
) -> Creation:
    return Creation(operation=f"{request.method} {request.url.path}", key=key)


TheCreation = Annotated[Creation, Depends(_creation)]
