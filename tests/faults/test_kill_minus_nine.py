"""`kill -9` at random moments of a batch: no line lost, none twice, none run again.

`CRASH_KILLS` says how many moments; 20 if it does not.
"""

import os
import random
from collections import Counter
from pathlib import Path

import pytest

from batch_api.lifecycle import BatchStatus
from batch_api.store.inspection import inspect
from tests.faults.job import Job
from tests.faults.remains import Remains, read_remains
from tests.server import Server, StandinProcess

pytestmark = pytest.mark.slow

_MANY = int(os.environ.get("CRASH_KILLS", "20"))
_MAX_IN_FLIGHT = 16
_KILLED_WHILE_STARTING = 0.2


def test_a_batch_survives_a_few_kills(tmp_path: Path, seed: int) -> None:
    _run(tmp_path, lines=300, kills=3, delay_ms=80, longest_life_seconds=1.0, seed=seed)


@pytest.mark.timeout(30 * _MANY)
def test_a_batch_survives_many_kills(tmp_path: Path, seed: int) -> None:
    _run(
        tmp_path, lines=100 * _MANY, kills=_MANY, delay_ms=150, longest_life_seconds=1.5, seed=seed
    )


def _run(
    folder: Path, *, lines: int, kills: int, delay_ms: float, longest_life_seconds: float, seed: int
) -> None:
    chance = random.Random(seed)
    job = Job([f"line-{number}" for number in range(lines)])
    settings = {"max_in_flight": _MAX_IN_FLIGHT, "max_batch_lines": lines}
    with (
        StandinProcess(folder, delay_ms=delay_ms, jitter_ms=delay_ms) as standin,
        Server(folder, standin.url, settings=settings) as server,
        server.client() as client,
    ):
        job.create(client)
        ordeal = Ordeal(server, standin, job.batch_id)
        for _ in range(kills):
            ordeal.kill()
            assert not ordeal.remains.status.is_final, "the batch ended before the last kill"
            if chance.random() < _KILLED_WHILE_STARTING:
                server.spawn()
            else:
                server.start()
            server.live(longest_life_seconds * chance.uniform(0.2, 1))
        server.wait_until_ready()
        job.complete(server, client)
        ordeal.end(job.custom_ids)


class Ordeal:
    """One batch whose server is killed again and again; checks what each kill leaves."""

    def __init__(self, server: Server, standin: StandinProcess, batch_id: str) -> None:
        self._batch_id = batch_id
        self._server = server
        self._standin = standin
        self._looked_at = 0
        """Entries of the stand-in's journal."""
        self._in_flight_at_kills = 0
        self.remains = Remains(BatchStatus.VALIDATING, {})

    def kill(self) -> None:
        self._server.kill()
        self._standin.wait_until_left()
        self._look()

    def end(self, custom_ids: list[str]) -> None:
        """To be called once the batch has completed."""
        self._server.terminate()
        self._standin.wait_until_left()
        self._look()
        served = self._standin.served()
        assert set(served) == set(custom_ids)
        assert served.total() <= len(custom_ids) + self._in_flight_at_kills

    def _look(self) -> None:
        """At what the server left, and at what it sent since it was started."""
        before, self.remains = self.remains, read_remains(self._server.data_dir, self._batch_id)
        inspection = inspect(self._server.data_dir, deep=True)
        assert inspection.is_all_right, inspection
        assert _reaches(before.status, self.remains.status)
        assert before.ended <= self.remains.ended
        seen = self._standin.seen()
        self._check_sent(seen[self._looked_at :], before)
        self._looked_at = len(seen)

    def _check_sent(self, seen: list[tuple[str, str]], before: Remains) -> None:
        sent = Counter(text for event, text in seen if event == "received")
        assert all(times == 1 for times in sent.values()), "a line was sent twice in one life"
        assert not before.ended & set(sent), "a line that had ended was sent again"
        assert self.remains.ended - before.ended <= set(sent), "a line ended without being sent"
        in_flight = set(sent) - self.remains.ended
        assert in_flight <= self.remains.leased
        answered = {text for event, text in seen if event == "answered"}
        assert len(in_flight - answered) <= _MAX_IN_FLIGHT
        self._in_flight_at_kills += len(in_flight)


def _reaches(old: BatchStatus, new: BatchStatus) -> bool:
    return old == new or any(_reaches(step, new) for step in BatchStatus if old.can_become(step))
