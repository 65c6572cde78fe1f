"""Whether an upstream can do anything; asked at most once a second, however many want to know."""

import asyncio
from contextlib import suppress
from typing import Any

from batch_api.clock import Clock
from batch_api.remembered import Remembered
from batch_api.unusable import UpstreamUnusable
from batch_api.upstreams import Models, Upstreams

_UPSTREAM_SECONDS = 10
_BELIEVED_SECONDS = 1.0

Check = dict[str, Any]
"""`status` is `ok` or a word for what is not; whatever else there is to tell stands beside it."""

LOADING: Check = {"status": "loading", "reason": "a worker is loading its model"}
AWAY: Check = {"status": "away", "reason": "no upstream tells its models"}


class UpstreamCheck:
    def __init__(self, upstreams: Upstreams, clock: Clock) -> None:
        self._upstreams = upstreams
        self._remembered = Remembered(clock)

    async def take(self) -> Check:
        """`away` and `loading`: nothing can be answered now; `some`: not by all of them."""
        return await self._remembered.find("models", self._ask, keep_seconds=_BELIEVED_SECONDS)

    async def take_within(self, seconds: float) -> Check | None:
        """None: it takes longer, as who is busy loading may be slow to say so."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self.take()
        return None

    async def _ask(self) -> Check:
        try:
            async with asyncio.timeout(_UPSTREAM_SECONDS):
                return self._told(await self._upstreams.models())
        except (UpstreamUnusable, TimeoutError):
            return LOADING if self._upstreams.are_starting else AWAY

    def _told(self, models: Models) -> Check:
        if models.objects and not models.ready:
            return LOADING
        counts = {"up": self._upstreams.count(up=True), "down": self._upstreams.count(up=False)}
        is_whole = models.are_all and not counts["down"] and models.ready == models.objects
        return {"status": "ok" if is_whole else "some", "models": len(models.ready), **counts}
