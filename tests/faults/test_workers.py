"""Upstreams that die, as the operator and the client of a running server see it."""

import json
import time
import urllib.error
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.faults.job import Job
from tests.server import Server, StandinProcess
from tests.standin import ENDLESS

pytestmark = pytest.mark.slow

_MIB = 1024 * 1024
_SECONDS = 60
_FEW_FILES = 8
_POLL_SECONDS = 0.05


def test_while_the_upstream_is_down_batches_wait_and_go_on_by_themselves(tmp_path: Path) -> None:
    job = Job([f"line-{number}" for number in range(300)])
    with (
        StandinProcess(tmp_path, delay_ms=30) as standin,
        Server(tmp_path, standin.url, settings={"max_in_flight": 8}) as server,
        server.client() as client,
    ):
        job.create(client)
        standin.wait_until_received(50)
        standin.kill()

        assert _upstreams(server, "away")["status"] == "away"
        assert client.batches.retrieve(job.batch_id).status == "in_progress"
        standin.start()
        job.complete(server, client)

        assert _upstreams(server, "ok")["up"] == 1
        assert standin.served().total() <= 300 + 8


def test_one_of_two_that_is_down_is_told_and_the_other_goes_on(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    job = Job([f"line-{number}" for number in range(300)])
    with (
        StandinProcess(tmp_path, delay_ms=30) as standin,
        StandinProcess(tmp_path / "other", delay_ms=30) as other,
        Server(tmp_path, standin.url, other.url, settings={"max_in_flight": 8}) as server,
        server.client() as client,
    ):
        job.create(client)
        other.wait_until_received(20)
        other.kill()
        job.complete(server, client)

        told = _upstreams(server, "some")
        assert (told["up"], told["down"]) == (1, 1)
        assert f'"upstream": "{other.url}"' in server.log_tail()


def test_answers_without_end_leave_the_servers_memory_flat(tmp_path: Path) -> None:
    endless = {f"line-{number}": ENDLESS for number in range(0, 60, 3)}
    job = Job([f"line-{number}" for number in range(60)], faults=endless)
    # One attempt: others would come at the end, all in a row, and open the circuit ever longer.
    settings = {"max_answer_bytes": _MIB, "max_in_flight": 8, "max_attempts": 1}
    with (
        StandinProcess(tmp_path) as standin,
        Server(tmp_path, standin.url, settings=settings) as server,
        server.client() as client,
    ):
        before = server.peak_memory_bytes()
        job.create(client)
        batch = job.end(server, client)

        assert batch.request_counts is not None
        assert (batch.request_counts.completed, batch.request_counts.failed) == (40, 20)
        assert batch.error_file_id is not None
        assert client.files.content(batch.error_file_id).text.count('"answer_too_large"') == 20
        assert server.peak_memory_bytes() - before < 64 * _MIB


def test_a_server_out_of_file_descriptors_fails_no_line_and_recovers(tmp_path: Path) -> None:
    first, job = Job(["first"]), Job([f"line-{number}" for number in range(200)])
    with (
        StandinProcess(tmp_path, delay_ms=50) as standin,
        Server(tmp_path, standin.url, settings={"max_in_flight": 64}) as server,
        server.client(max_retries=20) as client,
    ):
        first.create(client)
        first.complete(server, client)
        process = psutil.Process(server.pid)
        usual = process.rlimit(psutil.RLIMIT_NOFILE)
        few = process.num_fds() + _FEW_FILES
        process.rlimit(psutil.RLIMIT_NOFILE, (few, usual[1]))
        job.create(client)
        standin.wait_until_received(20)
        assert process.num_fds() <= few
        assert standin.stats().most_open <= 2 * _FEW_FILES  # not 64

        process.rlimit(psutil.RLIMIT_NOFILE, usual)
        job.complete(server, client)


def _upstreams(server: Server, status: str) -> dict[str, Any]:
    """What `/ready` says of them, once it has this status."""
    deadline = time.monotonic() + _SECONDS
    while (told := _ready(server)["checks"]["upstreams"])["status"] != status:
        assert time.monotonic() < deadline, told
        time.sleep(_POLL_SECONDS)
    return dict(told)


def _ready(server: Server) -> dict[str, Any]:
    try:
        return dict(json.loads(server.fetch("/ready")))
    except urllib.error.HTTPError as refusal:
        with refusal:
            return dict(json.loads(refusal.read()))
