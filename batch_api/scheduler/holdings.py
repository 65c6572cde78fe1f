"""The leases that this process holds: for how long, and the calls that are made under them."""

import asyncio
from collections.abc import Container, Iterable, Mapping
from types import TracebackType

from batch_api.clock import Clock
from batch_api.store.requests import Lease


class LeaseLost(Exception):
    """The request is somebody else's now, or has ended with its batch."""


class Holdings:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: dict[Lease, float] = {}
        self._calls: dict[Lease, Call] = {}

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
        """Lose those that are held still and not the newest attempt at their request; return them.

        `attempts`: of the requests that are leased, by id, as the store knows them.
        """
        lost = [
            lease
            for lease in leases
            if lease in self._until and attempts.get(lease.id) != lease.attempt
        ]
        for lease in lost:
            self._lose(lease)
        return lost

    def using(self, lease: Lease) -> "Call":
        """The block is broken off when the lease is lost, and raises LeaseLost then."""
        call = self._calls[lease] = Call(self._calls, lease)
        return call

    def _lose(self, lease: Lease) -> None:
        self._until.pop(lease, None)
        if call := self._calls.pop(lease, None):
            call.break_off()


class Call:
    """As asyncio.timeout, without its costs: there is one for each request."""

    __slots__ = ("_calls", "_cancelled_before", "_is_lost", "_lease", "_task")

    def __init__(self, calls: "dict[Lease, Call]", lease: Lease) -> None:
        self._calls = calls
        self._lease = lease
        self._is_lost = False
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelled_before = task.cancelling()

    def break_off(self) -> None:
        self._is_lost = True
        self._task.cancel()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._calls.pop(self._lease, None)
        # Whoever else cancelled the task meanwhile means more than this call.
        if (
            self._is_lost
            and self._task.uncancel() <= self._cancelled_before
            and (kind is asyncio.CancelledError)
        ):
            raise LeaseLost from error
