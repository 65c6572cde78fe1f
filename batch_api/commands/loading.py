"""Whether nothing goes on since a model is loading, which may take minutes."""

from batch_api.api.readiness import AWAY, LOADING, UpstreamCheck
from batch_api.clock import Clock
from batch_api.scheduler.dispatcher import NOT_TAKEN
from batch_api.upstreams import Upstreams

_PATIENCE_SECONDS = 1.0


class Loading:
    def __init__(self, upstreams: Upstreams, clock: Clock, *, are_own: bool) -> None:
        """`are_own`: they are workers of ours: one that is away is started anew, and loads it."""
        self._check = UpstreamCheck(upstreams, clock)
        self._are_own = are_own
        self._is_on = are_own
        self._was_ready = False

    async def waits_for(self, waits_for: str | None) -> str | None:
        """In words for a person, given what the scheduler says: what was ready once is not asked
        again while that is nothing.
        """
        if self._was_ready and waits_for is None:
            return None
        check = await self._check.take_within(_PATIENCE_SECONDS)
        if check is not None:  # else it is as it was
            self._is_on = check == LOADING or (self._are_own and check == AWAY)
            self._was_ready = self._was_ready or check["status"] in ("ok", "some")
        # Ours takes requests once it is ready, and is asked again within seconds.
        will_be_asked = self._are_own and waits_for == NOT_TAKEN
        return LOADING["reason"] if self._is_on or will_be_asked else waits_for
