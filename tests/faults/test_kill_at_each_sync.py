"""`kill -9` at each moment in which the server makes something durable, one after the other."""

import shutil
import sqlite3
from contextlib import closing, suppress
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


@pytest.mark.parametrize("in_parts", [False, True], ids=["whole", "in-parts"])
@pytest.mark.parametrize("call", ["fdatasync", "fsync", "/^rename"])
def test_what_was_acknowledged_survives_a_kill_at_each(
    tmp_path: Path, fresh_data: Path, call: str, in_parts: bool
) -> None:
    with StandinProcess(tmp_path) as standin:
        for nth in count(1):
            assert nth < _MORE_THAN_ENOUGH, "every run was killed: strace counts too much"
            folder = tmp_path / str(nth)
            shutil.copytree(fresh_data, folder / "data")
            job = Job([f"{nth}-{number}" for number in range(5)], in_parts=in_parts)
            if not _crash(job, folder, standin, _killing(call, nth)):
                break
        assert nth > 1, f"nothing calls {call}"
        assert max(standin.served().values()) <= 2


def _crash(job: Job, folder: Path, standin: StandinProcess, killing: list[str]) -> bool:
    """Run a batch in spite of a kill; whether there was one. No blob is left without its file."""
    if _is_done(job, Server(folder, standin.url, under=killing)):
        return False
    server = Server(folder, standin.url)
    assert _is_done(job, server)
    blobs = {path.name for path in (server.data_dir / "files").iterdir()}
    assert blobs == _files(server.data_dir)
    return True


def _files(data_dir: Path) -> set[str]:
    """The ids of all files. One more than the client knows of, if its answer was lost."""
    with closing(sqlite3.connect(data_dir / "batch-api.db")) as connection:
        return {id for (id,) in connection.execute("SELECT id FROM files")}


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
