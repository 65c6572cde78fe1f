"""The time before any model is ready, of which there is one thing to say."""

from batch_api.api.readiness import UpstreamCheck
from batch_api.clock import Clock
from batch_api.upstreams import Upstreams

_PATIENCE_SECONDS = 1.0


class Loading:
    def __init__(self, upstreams: Upstreams, clock: Clock) -> None:
        self._upstreams = upstreams
        self._check = UpstreamCheck(upstreams, clock)
        self._is_on = upstreams.are_starting
        self._is_over = False

    async def goes_on(self) -> bool:
        """Whether no model has been ready yet, and one is loading. Once over, it stays so."""
        if self._is_over:
            return self._is_on
        check = await self._check.take_within(_PATIENCE_SECONDS)
        if check is not None:  # else it is as it was
            self._is_on = check["status"] == "loading" or self._upstreams.are_starting
            self._is_over = check["status"] in ("ok", "some")
        return self._is_on
