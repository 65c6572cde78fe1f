"""SIGTERM: what is under way may end within the grace period, the rest waits for the next start."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import psutil
import pytest

from tests.faults.job import Job
from tests.server import Server, StandinProcess
from tests.standin import HANG, NO_FAULT, Fault

pytestmark = pytest.mark.slow

_GRACE_SECONDS = 2
_LONG_SECONDS = 600
_BUSY_MACHINE_SECONDS = 40
_BIG_BYTES = 60 * 1024 * 1024
_POLL_SECONDS = 0.02


@pytest.fixture
def standin(tmp_path: Path) -> Iterator[StandinProcess]:
    with StandinProcess(tmp_path) as standin:
        yield standin


def test_nothing_that_is_open_holds_it_past_its_grace_period_and_no_line_is_lost(
    tmp_path: Path, standin: StandinProcess
) -> None:
    job = Job([f"line-{number}" for number in range(50)])
    settings = {"shutdown_grace_seconds": _GRACE_SECONDS, "max_in_flight": 8}
    standin.set_fault(HANG)
    with (
        Server(tmp_path, standin.url, settings=settings) as server,
        server.client() as client,
        ExitStack() as opened,
    ):
        big = client.files.create(file=("big.txt", b"x" * _BIG_BYTES), purpose="user_data")
        job.create(client)
        standin.wait_until_received(8)
        for request in (
            b"",
            b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nx-half: ",
            _request("GET", f"/v1/files/{big.id}/content"),
            _request("POST", "/v1/files", _form(b"half of it"), announced=1000),
            _request("POST", "/v1/chat/completions", _chat("for ever")),
        ):
            opened.enter_context(_connection(server)).sendall(request)
        standin.wait_until_received(9)
        began = time.monotonic()
        assert server.terminate() == 0
        assert time.monotonic() - began < _GRACE_SECONDS + _BUSY_MACHINE_SECONDS

        standin.wait_until_left()
        standin.set_fault(NO_FAULT)
        server.start()
        job.complete(server, client)
        assert standin.served().total() <= 50 + 8 + 1


def test_what_is_under_way_ends_well_within_the_grace_period(
    tmp_path: Path, standin: StandinProcess
) -> None:
    settings = {"shutdown_grace_seconds": _LONG_SECONDS}
    with Server(tmp_path, standin.url, settings=settings) as server, _connection(server) as chat:
        with _connection(server) as upload:
            body = _form(b"a whole file")
            upload.sendall(_request("POST", "/v1/files", body[:200], announced=len(body)))
            slow = Fault(delay_ms=1500)
            chat.sendall(_request("POST", "/v1/chat/completions", _chat(f"{slow}hello")))
            standin.wait_until_received(1)
            psutil.Process(server.pid).send_signal(signal.SIGTERM)
            _wait_until_refused(server)
            upload.sendall(body[200:])

            assert upload.recv(12) == b"HTTP/1.1 200"
        assert chat.recv(12) == b"HTTP/1.1 200"
        assert server.wait_until_ended() == 0
        stopping, stopped = map(json.loads, server.log_tail().splitlines()[-2:])
        assert (stopping["message"], stopping["signal"]) == ("stopping", "SIGTERM")
        assert stopped["message"] == "stopped"
        server.start()
        assert b'"filename":"a.txt"' in server.fetch("/v1/files").replace(b": ", b":")


def test_a_second_sigterm_stops_at_once(tmp_path: Path, standin: StandinProcess) -> None:
    standin.set_fault(HANG)
    job = Job(["one"])
    settings = {"shutdown_grace_seconds": _LONG_SECONDS}
    with Server(tmp_path, standin.url, settings=settings) as server, server.client() as client:
        job.create(client)
        standin.wait_until_received(1)
        psutil.Process(server.pid).send_signal(signal.SIGTERM)
        _wait_until_refused(server)
        assert server.terminate() == 1

        standin.set_fault(NO_FAULT)
        server.start()
        job.complete(server, client)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=["term", "kill"])
def test_the_worker_of_a_job_ends_with_it(tmp_path: Path, end: signal.Signals) -> None:
    """While it loads its model, and all that it may have started."""
    (tmp_path / "in.jsonl").write_text('{"url": "/v1/chat/completions"}\n')
    command = ["run", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl")]
    job = psutil.Popen([sys.executable, "-m", "batch_api", *command], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + _BUSY_MACHINE_SECONDS
    while not (started := job.children(recursive=True)):
        assert time.monotonic() < deadline, "no worker was started"
        time.sleep(_POLL_SECONDS)

    job.send_signal(end)

    _, alive = psutil.wait_procs([job, *started], timeout=_BUSY_MACHINE_SECONDS)
    assert not alive
    assert job.returncode == (-signal.SIGKILL if end == signal.SIGKILL else 130)


def _connection(server: Server) -> socket.socket:
    port = int(server.url.rpartition(":")[2])
    return socket.create_connection(("127.0.0.1", port), timeout=_BUSY_MACHINE_SECONDS)


def _wait_until_refused(server: Server) -> None:
    """It takes nobody new: the signal has arrived."""
    deadline = time.monotonic() + _BUSY_MACHINE_SECONDS
    while True:
        try:
            _connection(server).close()
        except ConnectionRefusedError:
            return
        assert time.monotonic() < deadline, "it still listens"
        time.sleep(_POLL_SECONDS)


def _request(method: str, path: str, body: bytes = b"", *, announced: int = 0) -> bytes:
    kind = "multipart/form-data; boundary=b" if path == "/v1/files" else "application/json"
    head = (
        f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\n"
        f"content-length: {announced or len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _form(content: bytes) -> bytes:
    return (
        b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
        b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
        + content
        + b"\r\n--b--\r\n"
    )


def _chat(content: str) -> bytes:
    messages = [{"role": "user", "content": content}]
    return msgspec.json.encode({"model": "stand-in", "messages": messages})
