"""The leases that this process holds: for how long, and the calls that are made under them."""

import asyncio
from collections.abc import AsyncIterator, Container, Iterable, Mapping
from contextlib import asynccontextmanager

from batch_api.clock import Clock
from batch_api.store.requests import Lease


class LeaseLost(Exception):
    """The request is somebody else's now, or has ended with its batch."""


class Holdings:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: dict[Lease, float] = {}
        self._calls: dict[Lease, asyncio.Timeout] = {}

    @property
    def leases(self) -> list[Lease]:
        return list(self._until)

    def add(self, leases: Iterable[Lease], *, until: float) -> None:
        self._until.update((lease, until) for lease in leases)

    def drop(self, leases: Iterable[Lease]) -> None:
        """They have served their purpose."""
        for lease in leases:
            self._until.pop(lease, None)

    def prolong(self, leases: Iterable[Lease], *, until: float) -> None:
        """Those that are held still."""
        self._until.update((lease, until) for lease in leases if lease in self._until)

    def is_good(self, lease: Lease) -> bool:
        """Whether it has not run out, as far as this process knows."""
        return self._until.get(lease, 0.0) > self._clock.monotonic()

    def doubtful(self, running: Container[int]) -> list[Lease]:
        """Those that may be lost: they ran out, or their batch is none of `running`."""
        now = self._clock.monotonic()
        return [
            lease
            for lease, until in self._until.items()
            if until <= now or lease.batch_number not in running
        ]

    def compare(self, leases: Iterable[Lease], attempts: Mapping[int, int]) -> list[Lease]:
        """Lose those that are not the newest attempt at their request; return the others.

        `attempts`: of the requests that are leased, by id, as the store knows them.
        """
        kept = []
        for lease in leases:
            if attempts.get(lease.id) == lease.attempt:
                kept.append(lease)
            else:
                self._lose(lease)
        return kept

    @asynccontextmanager
    async def using(self, lease: Lease) -> AsyncIterator[None]:
        """The block is broken off when the lease is lost, and raises LeaseLost then."""
        try:
            async with asyncio.timeout(None) as call:
                self._calls[lease] = call
                try:
                    yield
                finally:
                    self._calls.pop(lease, None)
        except TimeoutError as error:
            if call.expired():
                raise LeaseLost from error
            raise

    def _lose(self, lease: Lease) -> None:
        self._until.pop(lease, None)
        if call := self._calls.pop(lease, None):
            call.reschedule(0.0)
