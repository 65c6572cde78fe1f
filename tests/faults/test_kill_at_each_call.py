"""`kill -9` right before each call that changes what is on the disk, one after the other."""

import os
import random
import shutil
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from openai import APIConnectionError

from batch_api.store.inspection import inspect
from tests.faults.day import Day
from tests.server import HasEnded, Server, StandinProcess

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace"),
]

_SETTINGS = {"cancel_grace_seconds": 0, "max_in_flight": 2}
_SOME = 6
_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Sweep:
    """Days that are cut short in one kind of call."""

    folder: Path
    fresh_data: Path
    standin: StandinProcess
    call: str

    def count(self) -> int:
        """How many of them the busiest thread makes in a day without a kill."""
        trace = self.folder / "calls"
        assert self._gets_through(Day(self.call), "count", ["-o", str(trace)])
        return max(Counter(line.split()[0] for line in trace.read_text().splitlines()).values())

    def kill(self, nth: int) -> bool:
        """The server, before a thread's nth such call; whether it came to that.

        However that may be, the next server goes on to the end of the day.
        """
        # Without strace's slash: a name that begins with one would lie outside the folder.
        name = f"{self.call.strip('/^')}-{nth}"
        inject = f"inject={self.call}:signal=KILL:when={nth}"
        day = Day(name)
        if self._gets_through(day, name, ["-o", "/dev/null", "-e", inject]):
            return False
        assert self._gets_through(day, name)
        served = self.standin.served()
        assert max(served[id] for id in day.run_ids) <= 2
        return True

    def _gets_through(self, day: Day, name: str, strace: Sequence[str] = ()) -> bool:
        """Unless the server dies on the way."""
        folder = self.folder / name
        if not folder.exists():
            shutil.copytree(self.fresh_data, folder / "data")
        # Not with --seccomp-bpf, quick as it is: strace 6.1 does not count calls then.
        under = ["strace", "-f", "-e", f"trace={self.call}", *strace] if strace else []
        server = Server(folder, self.standin.url, settings=_SETTINGS, under=under)
        with suppress(HasEnded, APIConnectionError):
            with server, server.client(max_retries=0) as client:
                day.go(server, client)
            inspection = inspect(server.data_dir, deep=True, results_are_kept=True)
            assert inspection.is_all_right, inspection
            return True
        return False


@pytest.fixture
def fresh_data(tmp_path: Path) -> Path:
    """A data folder in which the migrations have run."""
    with Server(tmp_path, "http://127.0.0.1:9") as server:
        server.terminate()
    return server.data_dir


@pytest.mark.parametrize("call", ["fdatasync", "fsync", "/^rename", "/^unlink"])
def test_nothing_is_lost_by_a_kill_at_each(tmp_path: Path, fresh_data: Path, call: str) -> None:
    with StandinProcess(tmp_path) as standin:
        sweep = Sweep(tmp_path, fresh_data, standin, call)
        _check(sweep, range(1, sweep.count() + 1))


@pytest.mark.parametrize("call", ["pwrite64", "write"])
def test_nothing_is_lost_by_a_kill_at_a_write(
    tmp_path: Path, fresh_data: Path, call: str, seed: int
) -> None:
    """At some of them; at each, if `CRASH_EVERY_WRITE` is set."""
    with StandinProcess(tmp_path) as standin:
        sweep = Sweep(tmp_path, fresh_data, standin, call)
        every = range(1, sweep.count() + 1)
        some = random.Random(seed).sample(every, _SOME)
        _check(sweep, every if os.environ.get("CRASH_EVERY_WRITE") else some)


def _check(sweep: Sweep, moments: Sequence[int]) -> None:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        kills = sum(pool.map(sweep.kill, moments))
    # A day is never quite as the one before.
    assert kills >= len(moments) / 2
