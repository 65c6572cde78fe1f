"""What was answered with an error is never run; what can't be known is not answered at all."""

from pathlib import Path

import pytest
from openai import APIConnectionError, InternalServerError

from tests.faults.disk import failing
from tests.faults.job import Job
from tests.server import HasEnded, Server, StandinProcess

pytestmark = pytest.mark.slow

_DISK_FAILED = 74
_SECONDS = 60


@pytest.mark.parametrize(
    ("call", "is_done"),
    [("fdatasync", True), ("pwrite64", False)],
)
def test_a_create_whose_commit_fails_is_not_answered(
    tmp_path: Path, call: str, is_done: bool
) -> None:
    """With `fdatasync` the log has it already, so that the next start may well find it."""
    job = Job(["a", "b"])
    with (
        StandinProcess(tmp_path) as standin,
        Server(tmp_path, standin.url) as server,
        server.client(max_retries=0) as client,
    ):
        job.upload(client)
        with failing(server.pid, call, "EIO", server.data_dir / "batch-api.db-wal"):
            with pytest.raises(APIConnectionError):
                job.create(client)
            with pytest.raises(HasEnded, match=f"with {_DISK_FAILED}\n"):
                server.live(_SECONDS)
        assert "batch-api: The disk failed: " in server.log_tail()

        server.start()
        assert len(client.batches.list().data) == is_done
        job.create(client)
        job.complete(server, client)
        assert len(client.batches.list().data) == 1
    assert set(standin.served().values()) == {1}


def test_a_create_that_was_answered_with_an_error_never_runs(tmp_path: Path) -> None:
    job = Job(["a", "b"])
    with (
        StandinProcess(tmp_path) as standin,
        Server(tmp_path, standin.url) as server,
        server.client(max_retries=0) as client,
    ):
        job.upload(client)
        with (
            failing(server.pid, "pwrite64", "ENOSPC", server.data_dir / "batch-api.db-wal"),
            pytest.raises(InternalServerError) as refused,
        ):
            job.create(client)
        assert refused.value.status_code == 507
        assert list(client.batches.list()) == []

        server.kill()
        server.start()
        assert list(client.batches.list()) == []
        assert standin.served() == {}
