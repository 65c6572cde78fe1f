"""The ordeal: customers, upstreams with troubles, and a server that is killed again and again."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from batch_api.store.inspection import inspect
from tests.server import HasEnded, Server, StandinProcess
from tests.soak.audit import Audit
from tests.soak.clock import faked
from tests.soak.customer import Customer
from tests.soak.orders import Kind, orders
from tests.soak.troubles import Troubles

_CUSTOMERS = 4
_UPSTREAMS = 2
_MOST_IN_FLIGHT = 16
_SETTLING_SECONDS = 240
_JUMP_SECONDS = 2 * 3600
_SETTINGS: dict[str, object] = {
    "max_in_flight": _MOST_IN_FLIGHT,
    "request_timeout_seconds": 5,
    "max_answer_bytes": 1024 * 1024,
    "lease_seconds": 10,
    "cancel_grace_seconds": 3,
    "shutdown_grace_seconds": 3,
    "completion_windows": '["24h", "1h"]',
    "max_part_bytes": 8 * 1024 * 1024,
}


@dataclass
class Outcome:
    seed: int
    minutes: float
    batches: Counter[str]
    """By status; those without one never ended."""
    lines: Counter[str]
    """By kind."""
    stops: Counter[str]
    """Of the server, by how; and the jumps of its clock."""
    troubles: Counter[str]
    """Of the upstreams, by kind."""
    sent: int
    answered_again: int
    in_flight_at_stops: int
    upstream_deaths: int
    complaints: list[str] = field(default_factory=list)

    @property
    def most_answered_again(self) -> int:
        """Whoever dies may take answers with it that nobody has recorded yet."""
        return self.in_flight_at_stops + self.upstream_deaths * _MOST_IN_FLIGHT

    def __str__(self) -> str:
        def told(counts: Counter[str]) -> str:
            return ", ".join(f"{name} {times}" for name, times in counts.most_common()) or "none"

        lost = sum("LOST" in complaint for complaint in self.complaints)
        doubled = sum("DOUBLED" in complaint for complaint in self.complaints)
        return "\n".join(
            [
                f"seed               {self.seed}, {self.minutes:g} minutes",
                f"batches            {self.batches.total()}: {told(self.batches)}",
                f"lines              {self.lines.total()}: {told(self.lines)}",
                f"the server         {told(self.stops)}",
                f"the upstreams      {told(self.troubles)}",
                f"requests served    {self.sent} for {self.lines.total()} lines",
                f"answered again     {self.answered_again}, where {self.most_answered_again}"
                f" are explained ({self.in_flight_at_stops} in flight when the server stopped,"
                f" {self.upstream_deaths} deaths of upstreams)",
                f"batches with lost lines {lost}, with doubled lines {doubled}",
                *(f"WRONG: {complaint}" for complaint in self.complaints),
                "all is right" if not self.complaints else "the promise is BROKEN",
            ]
        )


class Soak:
    def __init__(self, folder: Path, *, seed: int, minutes: float) -> None:
        self._seed = seed
        self._minutes = minutes
        self._chance = random.Random(f"{seed}-server")
        self._closing = threading.Event()
        self._stop = threading.Event()
        self._stops: Counter[str] = Counter()
        self._jumped_seconds = 0
        self._start_seconds = 0.0
        """That it took last: what is short on one machine is too short for another."""
        self._upstreams = [
            StandinProcess(_made(folder / f"upstream-{number}"), delay_ms=10)
            for number in range(_UPSTREAMS)
        ]
        self._troubles = [
            Troubles(upstream, f"{seed}-upstream-{number}")
            for number, upstream in enumerate(self._upstreams)
        ]
        self._server = Server(
            folder, *(upstream.url for upstream in self._upstreams), settings=_SETTINGS
        )
        self._audit = Audit(self._server.data_dir, self._upstreams)

    def run(self) -> Outcome:
        with ExitStack() as running:
            for upstream in self._upstreams:
                running.enter_context(upstream)
            self._start()
            running.push(self._server.__exit__)
            client = running.enter_context(self._server.client(max_retries=0)).with_options(
                timeout=20
            )
            customers = [
                Customer(
                    client,
                    orders(f"c{number}", f"{self._seed}-customer-{number}"),
                    closing=self._closing,
                    stop=self._stop,
                )
                for number in range(_CUSTOMERS)
            ]
            self._live(customers)
            self._end(customers)
        return self._outcome(customers)

    def _live(self, customers: list[Customer]) -> None:
        troubles = [_thread(lambda it=it: it.live(self._closing)) for it in self._troubles]  # type: ignore[misc]
        living = [_thread(customer.live) for customer in customers]
        end = time.monotonic() + 60 * self._minutes
        while time.monotonic() < end:
            self._live_and_stop()
        self._closing.set()
        for thread in troubles:
            thread.join()
        watches = [_thread(lambda it=it: it.watch(self._stop)) for it in self._troubles]  # type: ignore[misc]
        _join(living, within_seconds=_SETTLING_SECONDS)
        self._stop.set()
        _join([*living, *watches], within_seconds=_SETTLING_SECONDS)

    def _live_and_stop(self) -> None:
        try:
            self._server.live(self._start_seconds * self._chance.uniform(0.5, 5))
        except HasEnded as error:
            self._audit.complaints.append(f"the server ended by itself {error}")
        how = self._chance.choices(
            ["killed", "terminated", "killed, and again while it starts"], [6, 2, 2]
        )[0]
        self._stops[how] += 1
        if how == "terminated":
            if code := self._server.terminate():
                self._audit.complaints.append(f"SIGTERM: it ended with {code}")
        else:
            self._server.kill()
        if "again" in how:
            self._server.spawn(**faked(self._jumped_seconds))
            self._stop.wait(self._start_seconds * self._chance.uniform(0.1, 1))
            self._server.kill()
        self._audit.look(is_killed=how != "terminated")
        if self._chance.random() < 0.3:
            self._stops["clock jumped two hours"] += 1
            self._jumped_seconds += _JUMP_SECONDS
        self._start()

    def _start(self) -> None:
        began = time.monotonic()
        self._server.start(**faked(self._jumped_seconds))
        self._start_seconds = time.monotonic() - began

    def _end(self, customers: list[Customer]) -> None:
        self._stop.clear()
        for customer in customers:
            if not customer.complaints:
                customer.look_again()
        if code := self._server.terminate():
            self._audit.complaints.append(f"SIGTERM at the end: it ended with {code}")
        self._audit.look(is_killed=False)
        for finding in inspect(self._server.data_dir, deep=True).findings:
            self._audit.complaints.append(f"{finding.kind} {finding.subject}: {finding.what}")

    def _outcome(self, customers: list[Customer]) -> Outcome:
        placed = [order for customer in customers for order in customer.orders]
        outcome = Outcome(
            seed=self._seed,
            minutes=self._minutes,
            batches=Counter(order.status or "never ended" for order in placed),
            lines=Counter(line.kind for order in placed for line in order.lines),
            stops=self._stops,
            troubles=sum((it.counts for it in self._troubles), Counter()),
            sent=self._audit.sent.total(),
            answered_again=self._audit.answered_again,
            in_flight_at_stops=self._audit.in_flight_at_stops,
            upstream_deaths=sum(it.deaths for it in self._troubles),
        )
        for customer in customers:
            outcome.complaints += customer.complaints
        outcome.complaints += self._audit.complaints
        if outcome.answered_again > outcome.most_answered_again:
            outcome.complaints.append("more was answered again than the faults explain")
        if not any(line.kind == Kind.GOOD for order in placed for line in order.lines):
            outcome.complaints.append("nothing was ordered")
        return outcome


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def _join(threads: list[threading.Thread], *, within_seconds: float) -> None:
    deadline = time.monotonic() + within_seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
