"""Somebody else holds the database, or all files that the server may open are taken."""

import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from openai import APIStatusError

from tests.faults.job import Job
from tests.faults.test_full_disk import TROUBLE, readiness, serving, wait_for
from tests.server import HasEnded, Server, StandinProcess
from tests.standin import Fault

pytestmark = pytest.mark.slow

LINE = b'{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {}}\n'


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandinProcess]:
    with StandinProcess(tmp_path_factory.mktemp("standin")) as standin:
        yield standin


@contextmanager
def held(server: Server) -> Iterator[None]:
    """By another program, which writes."""
    path = server.data_dir / "batch-api.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def test_while_another_program_holds_the_database_writing_waits_and_reading_works(
    tmp_path: Path, standin: StandinProcess
) -> None:
    job = Job([f"line-{number}" for number in range(20)])
    server = serving(tmp_path, standin)
    with server, server.client(max_retries=0) as client:
        kept = client.files.create(file=("in.jsonl", LINE), purpose="batch").id
        standin.set_fault(Fault(delay_ms=500))
        job.create(client)
        wait_for(server, "batch validated")
        with held(server):
            with pytest.raises(APIStatusError) as busy:
                client.files.create(file=("in.jsonl", LINE), purpose="batch")
            assert (busy.value.status_code, busy.value.response.headers["retry-after"]) == (
                503,
                "1",
            )
            assert client.files.content(kept).read() == LINE
            wait_for(server, TROUBLE)
            report = readiness(server)
            assert report["degraded"] == ["store"]
            assert "locked" in report["checks"]["store"]["reason"]
        job.complete(server, client)
    assert max(standin.served().values()) == 1


def test_a_server_does_not_start_on_a_database_that_another_program_holds(
    tmp_path: Path, standin: StandinProcess
) -> None:
    server = serving(tmp_path, standin)
    with server:
        server.terminate()
        with (
            held(server),
            pytest.raises(
                HasEnded, match=r"with 2\n(.*\n)*batch-api: .+ can't be opened: database is locked"
            ),
        ):
            server.start()
        server.start()


def test_with_too_many_files_open_the_server_answers_503_and_recovers(
    tmp_path: Path, standin: StandinProcess
) -> None:
    server = serving(tmp_path, standin)
    with server, server.client(max_retries=0) as client:
        kept = client.files.create(file=("in.jsonl", LINE), purpose="batch").id
        with few_files(server):
            for call in (
                lambda: client.files.create(file=("in.jsonl", LINE), purpose="batch"),
                lambda: client.files.content(kept).read(),
            ):
                with pytest.raises(APIStatusError) as busy:
                    call()
                assert busy.value.status_code == 503
                assert busy.value.response.headers["retry-after"] == "1"

        assert client.files.content(kept).read() == LINE
        job = Job(["a"])
        job.create(client)
        job.complete(server, client)


@contextmanager
def few_files(server: Server) -> Iterator[None]:
    """The process may open no more than it has open."""
    before = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, before)
