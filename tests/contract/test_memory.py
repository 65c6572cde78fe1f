"""The server's memory stays flat, however large what it takes and gives."""

import http.client
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

import pytest

from batch_api.settings import MIB
from tests.server import Server, StandinProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

MOST_GROWTH_BYTES = 50_000_000
LINE = b'{"custom_id": "%07d", "padding": "' + b"x" * 1000 + b'"}\n'


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Just under 200 MiB of JSONL."""
    path = tmp_path_factory.mktemp("content") / "in.jsonl"
    count = 200 * MIB // len(LINE % 0)
    with path.open("wb") as file:
        file.writelines(LINE % number for number in range(count))
    return path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, "http://127.0.0.1:9", settings={"log_level": "error"}) as server:
        with server.client() as client:
            # What it needs once, whatever comes.
            small = client.files.create(file=LINE % 0, purpose="batch")
            client.files.content(small.id).read()
        yield server


@pytest.fixture
def server_of_standin(tmp_path: Path) -> Iterator[Server]:
    with StandinProcess(tmp_path) as standin, Server(tmp_path, standin.url) as server:
        with server.client() as client:
            client.files.create(file=LINE % 0, purpose="batch")
        yield server


def growth(server: Server, before: int) -> int:
    grown = server.peak_memory_bytes() - before
    print(f"memory grew by {grown / 1e6:.1f} MB")
    return grown


def test_an_upload_of_200_mib_and_its_download_need_no_memory(
    server: Server, content: Path, tmp_path: Path
) -> None:
    before = server.peak_memory_bytes()
    with server.client() as client:
        file = client.files.create(file=content, purpose="batch")
        assert growth(server, before) < MOST_GROWTH_BYTES

        with client.files.with_streaming_response.content(file.id) as response:
            response.stream_to_file(tmp_path / "back.jsonl")
        with client.files.with_streaming_response.content(file.id) as response:
            lines = sum(1 for _ in response.iter_lines())

    assert growth(server, before) < MOST_GROWTH_BYTES
    assert (tmp_path / "back.jsonl").read_bytes() == content.read_bytes()
    assert lines == content.stat().st_size // len(LINE % 0)


def test_an_upload_of_200_mib_in_parts_needs_no_memory(server: Server, content: Path) -> None:
    before = server.peak_memory_bytes()
    with server.client() as client:
        upload = client.uploads.upload_file_chunked(
            file=content, mime_type="application/jsonl", purpose="batch"
        )

    assert growth(server, before) < MOST_GROWTH_BYTES
    assert upload.file is not None
    assert upload.file.bytes == content.stat().st_size


def refusal_of(server: Server, path: Path) -> str:
    """Why a batch of that file fails."""
    with server.client() as client:
        file = client.files.create(file=path, purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        while batch.status == "validating":
            server.live(0.1)
            batch = client.batches.retrieve(batch.id)
    assert batch.status == "failed"
    assert batch.errors is not None
    assert batch.errors.data is not None
    return str(batch.errors.data[-1].code)


def test_a_line_of_200_mb_is_refused_and_needs_no_memory(
    server_of_standin: Server, tmp_path: Path
) -> None:
    path = tmp_path / "long.jsonl"
    with path.open("wb") as file:
        file.write(b'{"custom_id": "')
        for _ in range(199):
            file.write(b"x" * MIB)
    before = server_of_standin.peak_memory_bytes()

    assert refusal_of(server_of_standin, path) == "line_too_long"
    assert growth(server_of_standin, before) < MOST_GROWTH_BYTES


def test_a_50_001st_line_is_refused_and_needs_no_memory(
    server_of_standin: Server, tmp_path: Path
) -> None:
    path = tmp_path / "many.jsonl"
    line = (
        b'{"custom_id": "%d", "method": "POST", "url": "/v1/chat/completions", "body": '
        b'{"model": "stand-in", "messages": [{"role": "user", "content": "hi"}]}}\n'
    )
    with path.open("wb") as file:
        file.writelines(line % number for number in range(50_001))
    before = server_of_standin.peak_memory_bytes()

    assert refusal_of(server_of_standin, path) == "too_many_tasks"
    assert growth(server_of_standin, before) < MOST_GROWTH_BYTES


def test_bombs_and_endless_files_are_refused_and_need_no_memory(server: Server) -> None:
    before = server.peak_memory_bytes()
    head = (
        b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n{}\n'
    )
    packer = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    bomb = [packer.compress(piece) for piece in [head, *[bytes(16 * MIB)] * 20]]

    assert post(server, [*bomb, packer.flush()], encoding="gzip") == 413
    assert post(server, [head, *[b" " * MIB] * 300], encoding="identity") == 413

    assert growth(server, before) < MOST_GROWTH_BYTES
    assert len(list((server.data_dir / "files").iterdir())) == 1


def post(server: Server, chunks: Sequence[bytes], *, encoding: str) -> int:
    """The status, which may come before all is sent."""
    headers = {
        "content-type": "multipart/form-data; boundary=b",
        "content-encoding": encoding,
        "transfer-encoding": "chunked",
    }
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
    with closing(connection):
        with suppress(ConnectionError):
            connection.request(
                "POST", "/v1/files", body=iter(chunks), headers=headers, encode_chunked=True
            )
        return connection.getresponse().status
