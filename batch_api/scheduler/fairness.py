"""Whose requests go next: between tenants, then between each one's batches, by expected tokens.

Whoever has been given least is next (start-time fair queueing), the nearest deadline among equals;
so a small batch never waits for a huge one to end, and fifty batches get no more than one.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from math import ceil

from batch_api.store.batches import Running
from batch_api.store.requests import Lease

_BYTES_PER_TOKEN = 4
_FEWEST_A_TURN = 8
"""Requests leased at once: each turn is a statement."""


class Shares:
    """What each of some claimants was given: expected tokens, or bytes."""

    def __init__(self) -> None:
        self._given: dict[Hashable, float] = {}

    def __getitem__(self, claimant: Hashable) -> float:
        return self._given[claimant]

    def admit(self, claimants: Iterable[Hashable]) -> None:
        """These and no others. Who is new is owed nothing for the time before."""
        present = set(claimants)
        stay = {claimant: self._given[claimant] for claimant in present & self._given.keys()}
        least = min(stay.values(), default=0.0)
        self._given = dict.fromkeys(present, least) | stay

    def charge(self, claimant: Hashable, amount: float) -> None:
        self._given[claimant] += amount


class Fairness:
    """Remembers what everybody was given, from one round of leases to the next."""

    def __init__(self) -> None:
        self._tenants = Shares()
        self._batches: defaultdict[str, Shares] = defaultdict(Shares)

    def round(self, batches: Iterable[Running], limit: int) -> "Round":
        """Among batches with requests that may run now; `limit` requests in all."""
        waiting = [batch for batch in batches if batch.is_waiting]
        by_tenant: defaultdict[str, list[int]] = defaultdict(list)
        for batch in waiting:
            by_tenant[batch.tenant].append(batch.number)
        self._tenants.admit(by_tenant)
        self._batches = defaultdict(Shares, {tenant: self._batches[tenant] for tenant in by_tenant})
        for tenant, numbers in by_tenant.items():
            self._batches[tenant].admit(numbers)
        return Round(self, waiting, limit)

    def charge(self, batch: Running, leases: Sequence[Lease]) -> None:
        tokens = sum(_expected_tokens(batch, lease) for lease in leases)
        self._tenants.charge(batch.tenant, tokens)
        self._batches[batch.tenant].charge(batch.number, tokens)

    def rank(self, batch: Running) -> tuple[float, float, float, int]:
        """The lowest is next."""
        return (
            self._tenants[batch.tenant],
            self._batches[batch.tenant][batch.number],
            batch.expires_at or float("inf"),
            batch.number,
        )


class Round:
    """Turns at leasing, until `limit` requests are leased or nobody waits."""

    def __init__(self, fairness: Fairness, waiting: list[Running], limit: int) -> None:
        self._fairness = fairness
        self._waiting = waiting
        self._room = limit
        self._most_a_turn = max(_FEWEST_A_TURN, ceil(limit / max(len(waiting), 1)))

    def next(self) -> tuple[Running, int] | None:
        """Whose turn it is, and how many requests it may lease."""
        if not self._waiting or not self._room:
            return None
        batch = min(self._waiting, key=self._fairness.rank)
        return batch, min(self._room, self._most_a_turn)

    def took(self, batch: Running, leases: Sequence[Lease], *, offered: int) -> None:
        """What came of a turn; who had less than it was offered waits no longer."""
        self._fairness.charge(batch, leases)
        self._room -= len(leases)
        if len(leases) < offered:
            self._waiting.remove(batch)


def _expected_tokens(batch: Running, lease: Lease) -> float:
    """Of the prompt, by its length; of the answer, as its batch's answers so far."""
    return lease.body_length / _BYTES_PER_TOKEN + batch.mean_output_tokens
