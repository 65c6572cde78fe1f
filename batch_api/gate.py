"""Whom a server answers at all, by the `Host` and the `Origin` of a request.

That keeps out the web pages which somebody on this machine opens: without a key, the server takes
whoever can reach it for a friend, and a browser reaches it on behalf of any page.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from batch_api.envelope import RequestIds, render
from batch_api.errors import APIError

_LOCAL_NAME = "localhost"
_ANY = "*"


class HostNotServed(APIError):
    status = 421
    type = "invalid_request_error"
    code = "host_not_allowed"


class OriginNotAllowed(APIError):
    status = 403
    type = "permission_error"
    code = "origin_not_allowed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitors:
    """Who may come: by the names they call the server, and the pages that send them."""

    hosts: Sequence[str] = ()
    """Beside this machine's own; `*` for any."""
    origins: Sequence[str] = ()
    """Such as `https://app.example.com`, beside the server's own; `*` for any."""
    is_local: bool = False
    """Whether the server listens on this machine alone. Others answer to every host, if no hosts
    are named."""

    def at(self, *, is_local: bool) -> "Visitors":
        return replace(self, is_local=is_local)

    def check(self, headers: Headers) -> None:
        """Raises HostNotServed and OriginNotAllowed."""
        hosts = headers.getlist("host")
        if (self.is_local or self.hosts) and not self._are_served(hosts):
            shown = ", ".join(hosts)[:100]
            raise HostNotServed(
                f"This server is not called {shown!r}; its operator may allow that host."
            )
        origin = headers.get("origin")
        if origin is not None and not self._is_allowed(origin, hosts):
            raise OriginNotAllowed(
                f"Pages of {origin[:100]!r} may not use this server, unless its operator allows it."
            )

    def _are_served(self, hosts: Sequence[str]) -> bool:
        name = _name(hosts[0]) if len(hosts) == 1 else ""
        return name in self.hosts or _ANY in self.hosts or is_loopback(name)

    def _is_allowed(self, origin: str, hosts: Sequence[str]) -> bool:
        if origin in self.origins or _ANY in self.origins:
            return True
        return _is_own(origin, hosts)


USUAL = Visitors()


def is_from_here(headers: Headers) -> bool:
    """Whether a page of this server asks, or somebody who typed its address: not even a neighbour,
    such as another port of this machine, whose requests a browser sends with our cookies.
    """
    origin = headers.get("origin")
    is_own = origin is None or _is_own(origin, headers.getlist("host"))
    return is_own and headers.get("sec-fetch-site", "none") in ("same-origin", "none")


def _is_own(origin: str, hosts: Sequence[str]) -> bool:
    return [origin.partition("://")[2]] == list(hosts)


def is_loopback(host: str) -> bool:
    try:
        return host == _LOCAL_NAME or ip_address(host).is_loopback
    except ValueError:
        return False


def _name(host: str) -> str:
    """Without the port, and an IPv6 address without its brackets; empty if it is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return ""


class Gate:
    def __init__(self, app: ASGIApp, visitors: Visitors) -> None:
        self._app = app
        self._visitors = visitors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["type"] == "http":
                self._visitors.check(Headers(scope=scope))
        except APIError as error:
            await RequestIds(render(error))(scope, receive, send)
        else:
            await self._app(scope, receive, send)
