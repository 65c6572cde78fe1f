"""A hub with one model: just enough of the Hugging Face Hub for `hf download`."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import msgspec

_COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *given: Any, name: str, folder: Path, asked: list[str]) -> None:
        self._name = name
        self._files = {path.name: path for path in folder.iterdir() if path.is_file()}
        self._asked = asked
        super().__init__(*given)

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self._asked.append(path)
        match path.removeprefix("/").split(f"{self._name}/", 1):
            case ["api/models/", rest] if rest.startswith("tree/"):
                self._tell([{**self._about(file), "type": "file"} for file in self._files])
            case ["api/models/", _]:
                siblings = [{"rfilename": file} for file in self._files]
                self._tell({"id": self._name, "sha": _COMMIT, "siblings": siblings})
            case ["", rest] if (file := rest.split("/")[-1]) in self._files:
                self._answer(HTTPStatus.OK, self._files[file].read_bytes())
            case _:
                self._answer(HTTPStatus.NOT_FOUND, b"{}")

    do_HEAD = do_GET  # noqa: N815 by the library

    def _about(self, file: str) -> dict[str, Any]:
        content = self._files[file].read_bytes()
        return {"path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def _tell(self, content: Any) -> None:
        self._answer(HTTPStatus.OK, msgspec.json.encode(content))

    def _answer(self, status: HTTPStatus, content: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.send_header("x-repo-commit", _COMMIT)
        self.send_header("etag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def hub(name: str, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Its URL, and the paths that it is asked for. The model's files are those of the folder."""
    asked: list[str] = []
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(_Hub, name=name, folder=folder, asked=asked)
    )
    with server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
