"""I/O errors: the server ends loudly, and the next one has all that was acknowledged."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from openai import APIConnectionError, InternalServerError, OpenAI

from tests.faults.disk import failing
from tests.faults.job import Job
from tests.server import HasEnded, Server, StandinProcess

_DISK_FAILED = 74
_SECONDS = 60
LINE = b'{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {}}\n'


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandinProcess]:
    with StandinProcess(tmp_path_factory.mktemp("standin")) as standin:
        yield standin


def upload(client: OpenAI, content: bytes = LINE) -> str:
    return client.files.create(file=("in.jsonl", content), purpose="batch").id


def ends(server: Server) -> str:
    """By itself, because of the disk; returns what it said last."""
    with pytest.raises(HasEnded, match=f"with {_DISK_FAILED}\n"):
        server.live(_SECONDS)
    return server.log_tail().rstrip().rpartition("\n")[2]


@pytest.mark.parametrize(
    ("calls", "file", "what"),
    [
        ("fdatasync", "batch-api.db-wal", "the database can't be read or written"),
        ("pwrite64", "batch-api.db-wal", "the database can't be read or written"),
        ("fsync", "files", "a file can't get its name"),
    ],
)
def test_after_a_write_that_failed_the_server_ends_and_the_next_has_all(
    tmp_path: Path, standin: StandinProcess, calls: str, file: str, what: str
) -> None:
    server = Server(tmp_path, standin.url)
    with server, server.client(max_retries=0) as client:
        kept = upload(client)
        with failing(server.pid, calls, "EIO", server.data_dir / file):
            with suppress(APIConnectionError, InternalServerError):
                pytest.fail(f"{upload(client)} was acknowledged")
            said = ends(server)

        assert said.startswith(f"batch-api: The disk failed: {what}: ")
        server.start()
        assert client.files.content(kept).read() == LINE
        job = Job(["a", "b"])
        job.create(client)
        job.complete(server, client)
