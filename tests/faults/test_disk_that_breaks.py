"""I/O errors: the server ends loudly, and the next one has all that was acknowledged."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from openai import APIConnectionError, InternalServerError, OpenAI

from batch_api.scheduler.intake import NO_INPUT
from tests.faults.disk import failing
from tests.faults.job import Job
from tests.faults.test_full_disk import output_file_of
from tests.server import HasEnded, Server, StandinProcess
from tests.standin import NO_FAULT, Fault

pytestmark = pytest.mark.slow

_DISK_FAILED = 74
_SECONDS = 60
_POLL_SECONDS = 0.05
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


def restart_and_complete(server: Server, client: OpenAI, job: Job) -> None:
    server.start()
    job.create(client)
    job.complete(server, client)


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
        restart_and_complete(server, client, Job(["a", "b"]))
        assert client.files.content(kept).read() == LINE


def test_after_answers_that_could_not_be_synced_the_next_server_completes_the_batch(
    tmp_path: Path, standin: StandinProcess
) -> None:
    job = Job([f"synced-{number}" for number in range(20)])
    server = Server(tmp_path, standin.url, settings={"max_in_flight": 4})
    with server, server.client() as client:
        standin.set_fault(Fault(delay_ms=200))
        job.create(client)
        while standin.stats().open == 0:
            server.live(_POLL_SECONDS)
        wal = server.data_dir / "batch-api.db-wal"
        with failing(server.pid, "fdatasync", "EIO", wal):
            ends(server)
        standin.set_fault(NO_FAULT)

        restart_and_complete(server, client, job)


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_after_an_output_file_that_could_not_be_written_the_next_server_writes_it(
    tmp_path: Path, standin: StandinProcess, call: str
) -> None:
    job = Job([f"{call}-{number}" for number in range(3)])
    server = Server(tmp_path, standin.url)
    with server, server.client() as client:
        standin.set_fault(Fault(delay_ms=1000))
        job.create(client)
        output = output_file_of(server, job.batch_id)
        with failing(server.pid, call, "EIO", output.with_name(f"{output.name}.unfinished")):
            said = ends(server)
        standin.set_fault(NO_FAULT)

        assert said.startswith("batch-api: The disk failed: a file can't be ")
        assert not output.exists()
        restart_and_complete(server, client, job)


@pytest.mark.parametrize("nth", [1, 3])
def test_a_server_does_not_start_on_a_disk_that_fails(
    tmp_path: Path, standin: StandinProcess, nth: int
) -> None:
    """While the migrations make its tables."""
    trace = ["strace", "-f", "-o", "/dev/null", "-e", "trace=fdatasync"]
    inject = f"inject=fdatasync:error=EIO:when={nth}+"

    with pytest.raises(HasEnded, match=rf"with {_DISK_FAILED}\n(.*\n)*batch-api: The disk failed"):
        Server(tmp_path, standin.url, under=[*trace, "-e", inject]).start()

    with Server(tmp_path, standin.url) as server, server.client() as client:
        assert upload(client)


def test_a_file_that_can_not_be_read_is_an_error_and_the_server_lives(
    tmp_path: Path, standin: StandinProcess
) -> None:
    server = Server(tmp_path, standin.url)
    with server, server.client(max_retries=0) as client:
        id = upload(client)
        blob = server.data_dir / "files" / id
        with failing(server.pid, "pread64,read", "EIO", blob):
            with pytest.raises(InternalServerError, match="can't read that from its disk"):
                client.files.content(id)
            batch = client.batches.create(
                input_file_id=id, endpoint="/v1/chat/completions", completion_window="24h"
            )
            while (batch := client.batches.retrieve(batch.id)).status == "validating":
                server.live(_POLL_SECONDS)

        assert batch.status == "failed"
        assert batch.errors is not None
        assert batch.errors.data is not None
        assert batch.errors.data[0].message == NO_INPUT.message
        assert client.files.content(id).read() == LINE


def test_lines_that_can_not_be_read_when_their_turn_comes_are_errors(
    tmp_path: Path, standin: StandinProcess
) -> None:
    job = Job([f"read-{number}" for number in range(3)])
    server = Server(tmp_path, standin.url)
    with server, server.client(max_retries=0) as client:
        job.upload(client)
        (blob,) = (server.data_dir / "files").iterdir()
        with failing(server.pid, "pread64", "EIO", blob):
            job.create(client)
            while (batch := client.batches.retrieve(job.batch_id)).status != "completed":
                server.live(_POLL_SECONDS)

        assert batch.error_file_id is not None
        lines = client.files.content(batch.error_file_id).text.splitlines()
        assert [json.loads(line)["error"]["code"] for line in lines] == ["input_gone"] * 3


def test_a_database_that_can_not_be_read_ends_the_server(
    tmp_path: Path, standin: StandinProcess
) -> None:
    server = Server(tmp_path, standin.url)
    with server, server.client(max_retries=0) as client:
        kept = upload(client)
        server.terminate()  # what it has read is forgotten, and nothing lies in the log
        server.start()
        with failing(server.pid, "pread64", "EIO", server.data_dir / "batch-api.db"):
            with suppress(APIConnectionError, InternalServerError):
                upload(client)
            assert "the database can't be read or written" in ends(server)
        server.start()
        assert client.files.content(kept).read() == LINE
