"""Runs the server and the stand-in upstream as real processes, and ends those it started."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import psutil
from openai import OpenAI, Timeout

from tests.standin import Fault, Stats

_STOP_SECONDS = 60
_SERVERS_PORTS = range(15_000, 32_000)
_POLL_SECONDS = 0.02
_TAIL_BYTES = 4000


def free_port() -> int:
    """None that the system gives to clients: a server can be started on it again and again."""
    while True:
        port = secrets.choice(_SERVERS_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class HasEnded(Exception):
    """The process ended by itself."""


class Command:
    """A subprocess that serves HTTP; can be started again on the same port.

    A context: leaving it ends the process and its children. An error gets the log's tail.
    """

    ready_path = "/"
    start_seconds = 120.0
    poll_seconds = 0.02

    def __init__(
        self, command: Sequence[str], *, log: Path, port: int, environment: Mapping[str, str]
    ) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._command = command
        ours = {name: value for name, value in os.environ.items() if "BATCH_API" not in name}
        self._environment = ours | dict(environment)
        self._log = log
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.sweep()
        if error is not None:
            error.add_note(f"--- the end of {self._log.name} ---\n{self.log_tail()}")

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def has_ended(self) -> bool:
        return self._running.poll() is not None

    def start(self, **environment: str) -> Self:
        """`environment`: besides the usual one, for this life."""
        self.spawn(**environment)
        try:
            self.wait_until_ready()
        except BaseException:
            self.sweep()
            raise
        return self

    def spawn(self, **environment: str) -> None:
        """Start without waiting for it to serve."""
        assert all(process.poll() is not None for process in self._started), "it runs already"
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=log,
                env=self._environment | environment,
                start_new_session=True,
            )
        self._started.append(process)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.start_seconds
        while not self._is_ready():
            self.live(0)
            assert time.monotonic() < deadline, f"it doesn't get ready\n{self.log_tail()}"
            time.sleep(self.poll_seconds)

    def live(self, seconds: float) -> None:
        """Let it run. Raises HasEnded."""
        try:
            code = self._running.wait(seconds)
        except subprocess.TimeoutExpired:
            return
        raise HasEnded(f"with {code}\n{self.log_tail()}")

    def wait_until_ended(self) -> int:
        """Until it ends by itself; the exit status."""
        return self._running.wait(_STOP_SECONDS)

    def wait_until_logged(self, text: str) -> None:
        """Since the log was begun. Raises HasEnded."""
        deadline = time.monotonic() + _STOP_SECONDS
        while text.encode() not in self._log.read_bytes():
            assert time.monotonic() < deadline, f"it never says {text!r}\n{self.log_tail()}"
            self.live(_POLL_SECONDS)

    def kill(self) -> None:
        """SIGKILL to the process itself, not to its children."""
        self._running.kill()
        self._running.wait(_STOP_SECONDS)

    def terminate(self) -> int:
        """SIGTERM; returns the exit status."""
        self.send(signal.SIGTERM)
        return self._running.wait(_STOP_SECONDS)

    def send(self, number: signal.Signals) -> None:
        self._running.send_signal(number)

    def log_tail(self) -> str:
        return self._log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")

    def fetch(self, path: str, *, method: str = "GET", body: bytes | None = None) -> bytes:
        request = urllib.request.Request(self.url + path, data=body, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            content: bytes = answer.read()
            return content

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._started, "it was never started"
        return self._started[-1]

    def _is_ready(self) -> bool:
        try:
            self.fetch(self.ready_path)
        except (urllib.error.URLError, OSError):
            return False
        return True

    def sweep(self) -> None:
        """End what is left of the sessions that the processes led."""
        for process in self._started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(_STOP_SECONDS)


class Program(Command):
    """A Python module that takes a `--port`."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        log: Path,
        port: int,
        environment: Mapping[str, str],
        under: Sequence[str] = (),
    ) -> None:
        super().__init__(
            [*under, sys.executable, "-m", *arguments, "--port", str(port)],
            log=log,
            port=port,
            environment=environment,
        )


class Server(Program):
    """`batch-api serve` in front of the given upstreams."""

    ready_path = "/health"

    def __init__(
        self,
        folder: Path,
        *upstreams: str,
        port: int | None = None,
        settings: Mapping[str, object] | None = None,
        under: Sequence[str] = (),
    ) -> None:
        """`settings`: by the names of `batch_api.settings`; `under`: a command that runs it."""
        self.data_dir = folder / "data"
        arguments = ["batch_api", "serve", "--data-dir", str(self.data_dir)]
        for upstream in upstreams:
            arguments += ["--upstream", upstream]
        super().__init__(
            arguments,
            under=under,
            log=folder / "server.log",
            port=port or free_port(),
            environment={
                f"BATCH_API_{name.upper()}": str(value) for name, value in (settings or {}).items()
            },
        )

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        times = psutil.Process(self.pid).cpu_times()
        return times.user + times.system

    def client(self, *, key: str = "sk-test", max_retries: int = 2) -> OpenAI:
        """A context of its own: close it."""
        patience = Timeout(600, connect=60)  # with a busy machine
        return OpenAI(
            base_url=f"{self.url}/v1", api_key=key, max_retries=max_retries, timeout=patience
        )

    def peak_memory_bytes(self) -> int:
        """The most resident memory that the process ever had."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024


class StandinProcess(Program):
    """`tests.standin`; `seen` reads its journal, which outlives everything."""

    ready_path = "/stats"

    def __init__(
        self,
        folder: Path,
        *,
        delay_ms: float = 0,
        jitter_ms: float = 0,
        port: int | None = None,
        journal: bool = True,
    ) -> None:
        self._journal = folder / "standin.journal"
        arguments = ["tests.standin", "--delay-ms", str(delay_ms), "--jitter-ms", str(jitter_ms)]
        if journal:
            arguments += ["--journal", str(self._journal)]
        super().__init__(
            arguments, log=folder / "standin.log", port=port or free_port(), environment={}
        )

    def stats(self) -> Stats:
        return msgspec.json.decode(self.fetch("/stats"), type=Stats)

    def set_fault(self, fault: Fault) -> None:
        """For every request from now on that names no fault of its own."""
        self.fetch("/fault", method="PUT", body=msgspec.json.encode(fault))

    def seen(self) -> list[tuple[str, str]]:
        """`("received" | "answered" | "spoiled", text)`, in the order in which it happened."""
        lines = self._journal.read_text().split("\n")[:-1]
        return [(event, text) for event, _, text in (line.partition(" ") for line in lines)]

    def served(self) -> Counter[str]:
        """How often each text was received."""
        return Counter(text for event, text in self.seen() if event == "received")

    def wait_until_received(self, requests: int) -> None:
        """Until so many have come in all, since it was started."""
        deadline = time.monotonic() + _STOP_SECONDS
        while self.stats().received < requests:
            assert time.monotonic() < deadline, f"no {requests} requests come"
            time.sleep(_POLL_SECONDS)

    def wait_until_left(self) -> None:
        """Until no client but this one is connected: what a killed client sent is then counted."""
        deadline = time.monotonic() + _STOP_SECONDS
        while self.stats().connections > 1:
            assert time.monotonic() < deadline, "a client stays connected"
            time.sleep(_POLL_SECONDS)
