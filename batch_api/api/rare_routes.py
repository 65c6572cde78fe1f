"""Routes that most upstreams lack: whether any of ours has them."""

from http import HTTPStatus

from batch_api.clock import Clock
from batch_api.errors import Unavailable
from batch_api.upstreams import Upstreams

RARE_ENDPOINTS = frozenset(
    {"/v1/moderations", "/v1/images/generations", "/v1/images/edits", "/v1/videos"}
)

_BELIEVED_SECONDS = 60
_ABSENT = {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED}

_UNKNOWN = {None, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}


class RareRoutes:
    def __init__(self, upstreams: Upstreams, clock: Clock) -> None:
        self._upstreams = upstreams
        self._clock = clock
        self._known: dict[str, tuple[bool, float]] = {}
        """By endpoint; with the monotonic moment until which it is believed."""

    async def are_served(self, endpoint: str) -> bool:
        """By one upstream at least. Raises Unavailable if the only ones that may don't answer.

        Asked by a request that no model could answer: a server that has the route finds fault
        with its body, any other says that there is nothing here. OPTIONS would tell less.
        """
        served, believed_until = self._known.get(endpoint, (False, 0.0))
        now = self._clock.monotonic()
        if believed_until > now:
            return served
        served = await self._ask(endpoint)
        self._known[endpoint] = (served, now + _BELIEVED_SECONDS)
        return served

    async def _ask(self, endpoint: str) -> bool:
        statuses = await self._upstreams.statuses(endpoint)
        if not all(status in _ABSENT or status in _UNKNOWN for status in statuses):
            return True
        if any(status in _UNKNOWN for status in statuses):
            raise Unavailable(f"No upstream says whether it serves '{endpoint}'.")
        return False
