"""`kill -9` at each moment in which the server makes something durable, one after the other."""

import shutil
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
from openai import APIConnectionError

from tests.faults.job import Job
from tests.server import HasEnded, Server, StandinProcess

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace"),
]

_MORE_THAN_ENOUGH = 60


@pytest.fixture
def fresh_data(tmp_path: Path) -> Path:
    """A data folder in which the migrations have run."""
    with Server(tmp_path, "http://127.0.0.1:9") as server:
        server.terminate()
    return server.data_dir


@pytest.mark.parametrize("call", ["fdatasync", "fsync", "/^rename"])
def test_what_was_acknowledged_survives_a_kill_at_each(
    tmp_path: Path, fresh_data: Path, call: str
) -> None:
    with StandinProcess(tmp_path) as standin:
        for nth in count(1):
            assert nth < _MORE_THAN_ENOUGH, "every run was killed: strace counts too much"
            folder = tmp_path / str(nth)
            shutil.copytree(fresh_data, folder / "data")
            if not _crash(folder, standin, call, nth):
                break
        assert nth > 1, f"nothing calls {call}"
        assert max(standin.served().values()) <= 2


def _crash(folder: Path, standin: StandinProcess, call: str, nth: int) -> bool:
    """Run a batch in spite of a kill at the nth call; whether there was one."""
    job = Job([f"{nth}-{number}" for number in range(5)])
    if _is_done(job, Server(folder, standin.url, under=_killing(call, nth))):
        return False
    assert _is_done(job, Server(folder, standin.url))
    return True


def _is_done(job: Job, server: Server) -> bool:
    """Unless the server dies on the way."""
    with suppress(HasEnded, APIConnectionError), server, server.client(max_retries=0) as client:
        job.create(client)
        job.complete(server, client)
        return True
    return False


def _killing(call: str, nth: int) -> list[str]:
    """Before a thread's nth call, its process gets SIGKILL."""
    inject = f"inject={call}:signal=KILL:when={nth}"
    return ["strace", "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject]
