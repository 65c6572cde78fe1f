"""A disk that is really full, under a real server, at each stage of a batch."""

import http.client
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from openai import APIStatusError, OpenAI

from batch_api.lifecycle import BatchStatus
from batch_api.settings import MIB
from tests.faults.disk import SmallDisk, failing
from tests.faults.job import Job
from tests.server import HasEnded, Server, StandinProcess
from tests.standin import Fault

pytestmark = pytest.mark.slow

TROUBLE = "the disk is full or the database busy"
LINE = b'{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {}}\n'
_SECONDS = 60
_POLL_SECONDS = 0.05
_DISK_BYTES = 24 * MIB

needs_mount = pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to mount")


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandinProcess]:
    with StandinProcess(tmp_path_factory.mktemp("standin"), delay_ms=20) as standin:
        yield standin


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with SmallDisk(tmp_path / "data", size_bytes=_DISK_BYTES).mounted() as disk:
        yield disk


def serving(folder: Path, standin: StandinProcess, **settings: object) -> Server:
    return Server(folder, standin.url, settings={"max_in_flight": 8, **settings})


def wait_for(server: Server, text: str) -> None:
    """Until the log tells of it."""
    deadline = time.monotonic() + _SECONDS
    while text not in server.log_tail():
        server.live(_POLL_SECONDS)
        assert time.monotonic() < deadline


def readiness(server: Server) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(server.fetch("/ready"))
    return report


def long_ids(count: int, prefix: object) -> list[str]:
    return [f"{prefix}-{number}-".ljust(500, "x") for number in range(count)]


def refused(status: int, *calls: Any) -> None:
    for call in calls:
        with pytest.raises(APIStatusError) as refusal:
            call()
        assert refusal.value.status_code == status


@needs_mount
def test_on_a_full_disk_nothing_comes_in_nothing_is_left_and_reading_works(
    tmp_path: Path, standin: StandinProcess, disk: SmallDisk
) -> None:
    server = serving(tmp_path, standin, min_free_bytes=0)
    with server, server.client(max_retries=0) as client:
        kept = client.files.create(file=("in.jsonl", LINE), purpose="batch").id
        upload = client.uploads.create(
            bytes=len(LINE), filename="in.jsonl", mime_type="text/plain", purpose="batch"
        ).id
        part = client.uploads.parts.create(upload, data=LINE).id
        before = blobs(server)
        disk.fill()

        refused(
            507,
            lambda: client.files.create(file=("in.jsonl", LINE * 30_000), purpose="batch"),
            lambda: client.files.create(file=("in.jsonl", LINE), purpose="batch"),
            lambda: client.uploads.parts.create(upload, data=LINE),
            lambda: client.uploads.complete(upload, part_ids=[part]),
            lambda: fill_database(client, kept),
        )
        assert blobs(server) == before
        assert client.files.content(kept).read() == LINE
        assert {file.id for file in client.files.list()} == {kept}
        report = readiness(server)
        assert report["degraded"] == ["store"]
        assert "full" in report["checks"]["store"]["reason"]

        disk.empty()
        done = client.uploads.complete(upload, part_ids=[part])
        assert done.file is not None
        assert client.files.content(done.file.id).read() == LINE


def fill_database(client: OpenAI, file_id: str) -> None:
    """With batches, which take room in the write-ahead log only when that has to grow."""
    for _ in range(1000):
        client.batches.create(
            input_file_id=file_id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={str(number): "x" * 512 for number in range(16)},
        )


def blobs(server: Server) -> set[str]:
    return {path.name for path in (server.data_dir / "files").iterdir()}


@needs_mount
@pytest.mark.timeout(600)
@pytest.mark.parametrize("left", [0, 256, 512, 1024, 2048, 2304, 2560, 2816])
def test_a_batch_survives_a_disk_that_is_full_at_any_stage(
    tmp_path: Path, standin: StandinProcess, disk: SmallDisk, left: int
) -> None:
    """`left`: KiB, when the batch is created."""
    job = Job(long_ids(400, left))
    server = serving(tmp_path, standin, min_free_bytes=0)
    with server, server.client(max_retries=0) as client:
        job.upload(client)
        disk.fill(leaving=left * 1024)
        with suppress(APIStatusError):
            job.create(client)
            wait_for_trouble_or_end(server, client, job)
        disk.empty()
        job.create(client)
        job.complete(server, client)
        server.terminate()
        assert blobs(server) == file_ids(server)
    assert max(standin.served().values()) == 1


def wait_for_trouble_or_end(server: Server, client: OpenAI, job: Job) -> None:
    deadline = time.monotonic() + _SECONDS
    while TROUBLE not in server.log_tail():
        server.live(_POLL_SECONDS)
        if BatchStatus(client.batches.retrieve(job.batch_id).status).is_final:
            return
        assert time.monotonic() < deadline


def file_ids(server: Server) -> set[str]:
    with closing(sqlite3.connect(server.data_dir / "batch-api.db")) as connection:
        return {id for (id,) in connection.execute("SELECT id FROM files")}


def test_without_room_for_its_files_a_batch_stays_finalizing_and_then_completes(
    tmp_path: Path, standin: StandinProcess
) -> None:
    job = Job(["a", "b", "c"])
    server = serving(tmp_path, standin)
    with server, server.client() as client:
        standin.set_fault(Fault(delay_ms=1000))
        job.create(client)
        standin.set_fault(Fault(delay_ms=20))
        output = output_file_of(server, job.batch_id)
        with failing(server.pid, "write", "ENOSPC", output.with_name(f"{output.name}.unfinished")):
            wait_for(server, TROUBLE)
            assert client.batches.retrieve(job.batch_id).status == "finalizing"
            assert len(list(client.files.list())) == 1
            assert not output.exists()
        job.complete(server, client)


def output_file_of(server: Server, batch_id: str) -> Path:
    with closing(sqlite3.connect(server.data_dir / "batch-api.db")) as connection:
        row = connection.execute("SELECT output_file_id FROM batches WHERE id = ?", [batch_id])
        return server.data_dir / "files" / str(row.fetchone()[0])


@needs_mount
def test_below_its_mark_nothing_comes_in_and_below_half_of_it_nothing_is_sent(
    tmp_path: Path, standin: StandinProcess, disk: SmallDisk
) -> None:
    mark = 8 * MIB
    job = Job(long_ids(50, "mark"))
    server = serving(tmp_path, standin, min_free_bytes=mark)
    with server, server.client(max_retries=0) as client:
        job.upload(client)
        upload = client.uploads.create(
            bytes=len(LINE), filename="in.jsonl", mime_type="text/plain", purpose="batch"
        ).id
        part = client.uploads.parts.create(upload, data=LINE).id
        before = blobs(server)
        disk.fill(leaving=mark - MIB)
        refused(
            507,
            lambda: client.files.create(file=("in.jsonl", LINE), purpose="batch"),
            lambda: client.uploads.parts.create(upload, data=LINE),
            lambda: client.uploads.complete(upload, part_ids=[part]),
        )
        assert blobs(server) == before
        assert readiness(server)["checks"]["disk"]["status"] == "low"

        disk.fill(leaving=mark // 2 - MIB)
        sent = standin.stats().received
        job.create(client)
        wait_for(server, "the disk is nearly full")
        wait_for(server, "batch validated")
        report = readiness(server)
        assert (report["status"], report["degraded"]) == ("ready", ["disk"])
        assert report["checks"]["disk"]["status"] == "short"
        assert standin.stats().received == sent

        disk.empty()
        disk.fill(leaving=mark - MIB)
        job.complete(server, client)


@needs_mount
def test_a_file_that_would_not_leave_the_mark_free_is_refused_before_and_while_it_comes(
    tmp_path: Path, standin: StandinProcess, disk: SmallDisk
) -> None:
    server = serving(tmp_path, standin, min_free_bytes=_DISK_BYTES - 6 * MIB)
    content = LINE * (10 * MIB // len(LINE))
    with server, server.client(max_retries=0) as client:
        refused(507, lambda: client.files.create(file=("in.jsonl", content), purpose="batch"))
        status = upload_unannounced(server, content)

        assert status == 507
        assert blobs(server) == set()
        assert client.files.create(file=("in.jsonl", LINE), purpose="batch").bytes == len(LINE)


def upload_unannounced(server: Server, content: bytes) -> int:
    """In chunks, without a length."""
    head = (
        b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
    )
    pieces = (content[start : start + MIB] for start in range(0, len(content), MIB))
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
    with closing(connection):
        connection.request(
            "POST",
            "/v1/files",
            body=iter([head, *pieces, b"\r\n--b--\r\n"]),
            headers={"content-type": "multipart/form-data; boundary=b"},
            encode_chunked=True,
        )
        return connection.getresponse().status


@needs_mount
def test_a_server_does_not_start_in_a_folder_that_is_read_only(
    tmp_path: Path, standin: StandinProcess, disk: SmallDisk
) -> None:
    server = serving(tmp_path, standin)
    with server, server.client() as client:
        kept = client.files.create(file=("in.jsonl", LINE), purpose="batch").id
        server.terminate()
        disk.remount("ro")
        with pytest.raises(
            HasEnded, match=r"with 2\n(.*\n)*batch-api: .+ can't be written: Read-only"
        ):
            server.start()

        disk.remount("rw")
        server.start()
        assert client.files.content(kept).read() == LINE


@needs_mount
@pytest.mark.parametrize("left", [0, 16 * 1024])
def test_on_a_full_disk_a_server_starts_or_says_why_not(
    tmp_path: Path, standin: StandinProcess, disk: SmallDisk, left: int
) -> None:
    server = serving(tmp_path, standin)
    disk.fill(leaving=left)

    with pytest.raises(HasEnded, match=r"with 2\n(.*\n)*batch-api: .+ its disk is full\.\n$"):
        server.start()

    disk.empty()
    with server, server.client() as client:
        assert list(client.files.list()) == []
