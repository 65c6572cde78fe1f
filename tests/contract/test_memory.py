"""The server's memory stays flat, however large what it takes and gives."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from batch_api.settings import MIB
from tests.server import Server

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
