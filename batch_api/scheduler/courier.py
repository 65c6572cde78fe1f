"""One attempt at a webhook: what is told, and what is made of how it is taken."""

from random import Random

from batch_api.clock import Clock
from batch_api.failpoints import failpoint
from batch_api.lifecycle import BatchStatus, DeliveryState
from batch_api.origins import leads_to
from batch_api.receivers import Message, Receivers, Reception
from batch_api.schemas.events import Event
from batch_api.settings import Settings
from batch_api.store.deliveries import Attempt, Due

_FIRST_PAUSE_SECONDS = 5.0
_GROWTH = 4.0
_LONGEST_PAUSE_SECONDS = 6 * 3600.0
_MOST_ATTEMPTS = 19
"""The last is about three days after the first."""
_JITTER = 0.2
MOST_PAUSE_SECONDS = _LONGEST_PAUSE_SECONDS * (1 + _JITTER)

_NOT_ALLOWED = Reception("is no longer named by the settings")


class Courier:
    def __init__(self, *, settings: Settings, clock: Clock, receivers: Receivers) -> None:
        self._settings = settings
        self._clock = clock
        self._receivers = receivers
        self._random = Random()  # noqa: S311 nobody gains by knowing it

    async def deliver(self, due: Due) -> Attempt:
        await failpoint("webhook_lost")
        reception = await self._tell(due)
        await failpoint("webhook_told_twice")
        return self._judge(due, reception)

    async def _tell(self, due: Due) -> Reception:
        named, hosts = self._settings.webhook_urls, self._settings.webhook_hosts
        if due.url not in named and not leads_to(due.url, hosts):
            return _NOT_ALLOWED
        event = Event.of_end(due.batch_id, BatchStatus(due.status), at=due.ended_at)
        message = Message(event.id, event.as_json())
        return await self._receivers.tell(due.url, message, now=self._clock.now())

    def _judge(self, due: Due, reception: Reception) -> Attempt:
        failure = reception.failure
        if failure is None:
            return Attempt(due.number, DeliveryState.DELIVERED)
        if reception.is_for_good or due.attempts + 1 >= _MOST_ATTEMPTS:
            return Attempt(due.number, DeliveryState.GIVEN_UP, failure)
        jitter = self._random.uniform(1 - _JITTER, 1 + _JITTER)
        pause = max(_pause_seconds(due.attempts + 1) * jitter, reception.wish_seconds)
        return Attempt(due.number, DeliveryState.PENDING, failure, self._clock.now() + pause)


def _pause_seconds(attempts: int) -> float:
    """After so many that failed."""
    return min(_FIRST_PAUSE_SECONDS * _GROWTH ** (attempts - 1), _LONGEST_PAUSE_SECONDS)
