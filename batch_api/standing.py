"""How one upstream stands: who is there, how many more it is given, and whether it rests.

A request that ends badly in company may be the victim of another one there: the process behind the
connection died, or the queue was too long. Nobody is blamed then, but whoever was there comes back
with a suspicion, and with each suspicion in a quarter of the company, until the culprit is alone.

Troubles in a row open a circuit: it rests, ever longer, and is asked for a proof of life then that
costs no request; with it one request of a batch at a time finds out whether it works again.
"""

import time
from dataclasses import dataclass

_FIRST_REST_SECONDS = 0.1
_LONGEST_REST_SECONDS = 30.0
_OPENS = 3
"""Troubles in a row that open the circuit."""


@dataclass(slots=True, eq=False)
class Visit:
    """A request at an upstream, from before it is sent until its answer is whole."""

    is_batch: bool
    most: int
    """Requests of batches that may be there at once while it is."""
    began: float
    had_company: bool = False
    is_connected: bool = False
    """It has come through: the upstream can be at work on it."""


class Standing:
    def __init__(self, *, most: int) -> None:
        """`most`: requests of batches it is given at once, if nothing speaks against it."""
        self.rests_until = 0.0
        """Monotonic: not asked before this if another can be."""
        self._most = most
        self._width = float(most)
        self._floor = 1.0
        self._narrowed_at = 0.0
        self._answered_at = 0.0
        self._troubles = 0
        self._troubled_at = 0.0
        self._is_alive = True
        self._visits: set[Visit] = set()
        self._batch_visits = 0
        self._tightest = most

    @property
    def in_flight(self) -> int:
        return len(self._visits)

    @property
    def is_at_work(self) -> bool:
        """On a request, for all that is known."""
        return any(visit.is_connected for visit in self._visits)

    @property
    def is_open(self) -> bool:
        """The circuit: it is in trouble, and no request has been answered since."""
        return self._troubles >= _OPENS

    @property
    def needs_proof(self) -> bool:
        """That somebody is there, before a request is risked."""
        return self.is_open and not self._is_alive

    @property
    def is_on_trial(self) -> bool:
        """A request of a batch is finding out whether it works again."""
        return self.is_open and self._batch_visits > 0

    @property
    def width(self) -> int:
        """Requests of batches that may be there at once, as it stands."""
        return 1 if self.is_open else int(self._width)

    def admits(self, suspicion: int) -> bool:
        """Whether a request of a batch may go there now."""
        return self._batch_visits < min(self.width, self._tightest, company(self._most, suspicion))

    def begin(self, *, suspicion: int = 0, is_batch: bool) -> Visit:
        if len(self._visits) == 1:
            for first in self._visits:
                first.had_company = True
        most = company(self._most, suspicion)
        visit = Visit(is_batch, most, time.monotonic(), had_company=bool(self._visits))
        self._visits.add(visit)
        self._batch_visits += is_batch
        self._tightest = min(self._tightest, most)
        return visit

    def end(self, visit: Visit) -> None:
        """Any number of times."""
        if visit not in self._visits:
            return
        self._visits.remove(visit)
        self._batch_visits -= visit.is_batch
        if visit.most == self._tightest < self._most:
            self._tightest = min((other.most for other in self._visits), default=self._most)

    def answered(self) -> None:
        """A whole answer came: its troubles are over, and it is given a little more at once."""
        self._troubles = 0
        self._answered_at = time.monotonic()
        self._width = min(self._most, self._width + 1 / self._width)

    def proved(self) -> None:
        """Somebody is there."""
        self._is_alive = True

    def doubt(self) -> None:
        """A proof was not followed by its request, and says nothing of later ones."""
        self._is_alive = False

    def refused(self, visit: Visit) -> None:
        """It has no place for more than the others there; half of what it had is still tried.

        One that has answered nobody since the last time is only loading.
        """
        is_first = visit.began >= self._narrowed_at
        if is_first and self._answered_at > self._narrowed_at:
            self._floor = max(1.0, self._width / 2)
            self._narrowed_at = time.monotonic()
        if visit.began < self._narrowed_at:
            others = self._batch_visits - visit.is_batch
            self._width = max(self._floor, min(self._width, others))

    def timed_out(self, visit: Visit) -> None:
        """No answer in time: there is a queue; or it hangs, if nobody got one meanwhile."""
        self._narrow(visit)
        if self._answered_at < visit.began and visit.began >= self._troubled_at:
            self._troubles = max(self._troubles, _OPENS - 1)
            self.failed(visit)

    def failed(self, visit: Visit) -> None:
        """It broke off, or spoke nonsense: it rests, ever longer. Once for all that were there."""
        if visit.began >= self._troubled_at:
            growth = 2 ** min(self._troubles, 10)
            self.rest(min(_FIRST_REST_SECONDS * growth, _LONGEST_REST_SECONDS))
            self._troubles += 1
            self._troubled_at = time.monotonic()
            self._is_alive = False

    def rest(self, seconds: float) -> None:
        self.rests_until = max(self.rests_until, time.monotonic() + seconds)

    def _narrow(self, visit: Visit) -> None:
        """Half as much at once. Once for all that were there together."""
        if visit.began >= self._narrowed_at:
            self._width = self._floor = max(1.0, self._width / 2)
            self._narrowed_at = time.monotonic()


def company(most: int, suspicion: int) -> int:
    """How many requests of batches one so suspicious may be among, itself counted."""
    return max(1, most >> 2 * suspicion)
