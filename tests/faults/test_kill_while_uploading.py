"""`kill -9` in the middle of an upload: as if it had never begun."""

import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from batch_api.store.inspection import inspect
from tests.server import Server

pytestmark = pytest.mark.slow

_MIB = 1024 * 1024
_POLL_SECONDS = 0.02
_HEAD = """POST /v1/files HTTP/1.1\r
host: {host}\r
content-type: multipart/form-data; boundary=b\r
content-length: {length}\r
\r
--b\r
content-disposition: form-data; name="purpose"\r
\r
batch\r
--b\r
content-disposition: form-data; name="file"; filename="in.jsonl"\r
\r
"""


def test_of_an_upload_that_was_cut_off_nothing_stays(tmp_path: Path) -> None:
    with Server(tmp_path, "http://127.0.0.1:9") as server:
        host, port = urlsplit(server.url).hostname, urlsplit(server.url).port
        with socket.create_connection((host, port)) as channel:
            channel.sendall(_HEAD.format(host=host, length=100 * _MIB).encode())
            channel.sendall(b"{}\n" * _MIB)
            _wait_until_written(server.data_dir / "files")
            server.kill()

        server.start()
        with server.client() as client:
            assert list(client.files.list()) == []
        assert list((server.data_dir / "files").iterdir()) == []
        server.terminate()
    assert inspect(server.data_dir, deep=True).is_all_right


def _wait_until_written(blobs: Path) -> None:
    """Some of the bytes."""
    while not any(path.stat().st_size for path in blobs.iterdir()):
        time.sleep(_POLL_SECONDS)
