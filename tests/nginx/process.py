"""Runs nginx with the repository's configuration, on free ports and without root."""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import msgspec
import psutil

from tests.server import Command, free_port

CONFIGURATION = Path(__file__).parents[2] / "nginx"

_NOBODY = 65534
_LOG_SECONDS = 30
_LISTEN = re.compile(r"listen \d+")
_SERVER = re.compile(r"( *server )(\S+) resolve")


class Nginx(Command):
    """In front of what listens at `addresses`, by the names that the configuration has for them."""

    ready_path = "/nginx/health"

    def __init__(
        self,
        file: str,
        addresses: Mapping[str, str],
        *,
        port: int | None = None,
        directives: Mapping[str, str] | None = None,
    ) -> None:
        """`directives`: values in place of the configuration's, to wait less."""
        self._folder = Path(tempfile.mkdtemp(prefix="nginx-"))
        self.port = port or free_port()
        for path in CONFIGURATION.iterdir():
            placed = _placed(path.read_text(), addresses, self.port)
            (self._folder / path.name).write_text(_with(directives or {}, placed))
        log = self._folder / "nginx.log"
        log.touch()
        arguments = ["-e", "stderr", "-p", f"{self._folder}/", "-c", str(self._folder / file)]
        super().__init__(
            [*self._as_nobody(), "nginx", *arguments, "-g", "daemon off;"],
            log=log,
            port=self.port,
            environment={"PATH": f"{os.environ['PATH']}:/usr/sbin"},
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        shutil.rmtree(self._folder)

    def requests(self, *, at_least: int = 0) -> list[dict[str, object]]:
        """What the access log says, which is written after the client has its answer."""
        deadline = time.monotonic() + _LOG_SECONDS
        while len(lines := self._log_lines()) < at_least:
            assert time.monotonic() < deadline, f"{len(lines)} requests are logged"
            time.sleep(self.poll_seconds)
        return [msgspec.json.decode(line) for line in lines]

    def _log_lines(self) -> list[bytes]:
        *whole, _ = self._log.read_bytes().split(b"\n")
        return [line for line in whole if line.startswith(b"{")]

    def memory_bytes(self) -> int:
        """Of all its processes now."""
        master = psutil.Process(self.pid)
        return sum(each.memory_info().rss for each in (master, *master.children()))

    def stored_bytes(self) -> int:
        """In files of its own, the log aside."""
        files = [path for path in self._folder.rglob("*") if path.is_file() and path != self._log]
        return sum(path.stat().st_size for path in files)

    def _as_nobody(self) -> list[str]:
        if os.geteuid() != 0:
            return []
        for path in (self._folder, *self._folder.iterdir()):
            os.chown(path, _NOBODY, _NOBODY)
        return ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]


def _placed(text: str, addresses: Mapping[str, str], port: int) -> str:
    """Without the servers that nobody has an address for."""
    lines = []
    for line in _LISTEN.sub(f"listen 127.0.0.1:{port}", text).splitlines(keepends=True):
        if (server := _SERVER.match(line)) is None:
            lines.append(line)
        elif server[2] in addresses:
            lines.append(server[1] + addresses[server[2]] + line[server.end() :])
    return "".join(lines)


def _with(directives: Mapping[str, str], text: str) -> str:
    for name, value in directives.items():
        text = re.sub(rf"^(\s*){name} [^;]*;", rf"\g<1>{name} {value};", text, flags=re.MULTILINE)
    return text
