"""`batch-api submit` on a network that loses answers, and what it leaves on the server."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from batch_api.client.remote import Remote
from batch_api.client.submitting import submit
from batch_api.errors import Unusable
from tests.client.calling import KEY, call, write
from tests.client.scripted import BATCH, FILE, HANG, LOST, Scripted, refusal, told

BEGIN = "POST /v1/batches"
UPLOAD = "POST /v1/files"
DELETE = "DELETE /v1/files/file-in"
_SECONDS = 100


@pytest.fixture
def server(scripted: Scripted) -> Scripted:
    scripted.answers(UPLOAD, told(FILE))
    scripted.answers(DELETE, told({"id": "file-in", "object": "file", "deleted": True}))
    return scripted


def submit_at_once(server: Scripted, input: Path) -> None:
    """Without patience."""
    with Remote.at(server.url, KEY) as remote:
        submit(
            remote,
            input,
            endpoint=None,
            window="24h",
            metadata={},
            patience_seconds=0,
        )


def test_a_batch_whose_answer_was_lost_is_asked_for_again_under_the_same_key(
    server: Scripted, tmp_path: Path
) -> None:
    server.answers(BEGIN, LOST, LOST, LOST, refusal(503), told(BATCH))

    ended = call(server.url, "submit", str(write(tmp_path, ["a"])))

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "batch_1\n"
    keys = {one.headers["idempotency-key"] for one in server.heard if one.what == BEGIN}
    assert server.count(BEGIN) == 5
    assert len(keys) == 1
    assert server.count(DELETE) == 0


def test_the_input_of_a_batch_that_may_have_begun_stays(server: Scripted, tmp_path: Path) -> None:
    server.answers(BEGIN, LOST)

    with pytest.raises(Unusable, match=r"may have begun.*`batch-api batches`.*file-in"):
        submit_at_once(server, write(tmp_path, ["a"]))

    assert server.count(DELETE) == 0


def test_the_input_of_a_batch_that_is_refused_is_deleted(server: Scripted, tmp_path: Path) -> None:
    server.answers(BEGIN, refusal(400, "No such window."))

    with pytest.raises(Unusable, match="No such window"):
        submit_at_once(server, write(tmp_path, ["a"]))

    assert server.count(DELETE) == 1


def test_ctrl_c_before_a_batch_is_known_says_that_it_may_have_begun(
    server: Scripted, tmp_path: Path
) -> None:
    server.answers(BEGIN, HANG)
    input = write(tmp_path, ["a"])
    command = [sys.executable, "-m", "batch_api", "submit", str(input), "--server", server.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + _SECONDS
        while not server.count(BEGIN):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=_SECONDS)

    assert process.returncode == 130
    assert "may have begun" in said.decode()
    assert "file-in" in said.decode()
    assert server.count(DELETE) == 0
