"""The commands that speak to a server: to a real one in front of the stand-in."""

import gzip
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.client import calling
from tests.client.calling import KEY, drain, read, write
from tests.command_line import Ended, batch_api
from tests.server import Server, StandinProcess
from tests.standin import MODEL, Fault, answer_to

REFUSED = Fault(status=400)
ONCE_REFUSED = Fault(status=400, times=1)
SLOW = Fault(delay_ms=500)
_SECONDS = 100


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with (
        StandinProcess(folder, journal=False) as standin,
        Server(folder, standin.url, settings={"api_key": KEY, "log_level": "error"}) as server,
    ):
        yield server


def as_process(server: Server, *arguments: str) -> list[str]:
    options = ["--server", server.url]
    return [sys.executable, "-m", "batch_api", *arguments, *options]


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"OPENAI_API_KEY": KEY, "COLUMNS": "300", **more}


def call(server: Server, *arguments: str) -> Ended:
    return calling.call(server.url, *arguments)


def start(server: Server, *arguments: str, stderr: Path) -> "subprocess.Popen[str]":
    """Returns when it has said something."""
    with stderr.open("wb") as said:
        process = subprocess.Popen(
            as_process(server, *arguments),
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        )
    until(lambda: stderr.read_text().endswith("\n"))
    return process


def answers(lines: list[dict[str, Any]]) -> list[str]:
    return [line["response"]["body"]["choices"][0]["message"]["content"] for line in lines]


def test_a_file_goes_in_and_the_answers_come_out(server: Server, tmp_path: Path) -> None:
    texts = [f"text {n}" for n in range(20)]
    input, output = write(tmp_path, texts), tmp_path / "out.jsonl"

    ended = call(server, "submit", str(input), "--metadata", "job=nightly", "-o", str(output))

    assert ended.returncode == 0, ended.stderr
    id = ended.stdout.strip()
    assert id.startswith("batch_")
    assert answers(read(output)) == [answer_to(text) for text in texts]
    assert f"{id} completed: 20 of 20 answered." in ended.stderr
    assert "\x1b" not in ended.stderr
    listed = call(server, "batches", "--limit", "1")
    assert listed.stdout.split()[:4] == [id, "completed", "20/20", "0"]
    assert "job=nightly" in listed.stdout


def test_a_packed_file_is_sent_unpacked(server: Server, tmp_path: Path) -> None:
    texts = [f"text {n}" for n in range(1000)]
    plain, packed = write(tmp_path, texts), tmp_path / "in.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    output = tmp_path / "out.jsonl"

    ended = call(server, "submit", str(packed), "-o", str(output))

    assert ended.returncode == 0, ended.stderr
    assert answers(read(output)) == [answer_to(text) for text in texts]
    with server.client().with_options(api_key=KEY) as client:
        file = client.files.retrieve(client.batches.retrieve(ended.stdout.strip()).input_file_id)
        assert (file.filename, file.bytes) == ("in.jsonl", plain.stat().st_size)


def test_a_packed_file_that_is_broken_is_not_sent(server: Server, tmp_path: Path) -> None:
    packed = tmp_path / "in.jsonl.gz"
    packed.write_bytes(gzip.compress(write(tmp_path, ["a"] * 10_000).read_bytes())[:-4])

    ended = call(server, "submit", str(packed))

    assert ended.returncode == 2
    assert ended.stderr.startswith(f"batch-api: {packed} is not whole, or not what gzip writes: ")
    assert ended.stderr.count("\n") == 1


def test_failed_lines_are_told_and_run_again(server: Server, tmp_path: Path) -> None:
    input = write(tmp_path, ["fine", f"{ONCE_REFUSED}second time lucky"])
    output, errors = tmp_path / "out.jsonl", tmp_path / "out.errors.jsonl"

    first = call(server, "submit", str(input), "-o", str(output))

    assert first.returncode == 1, first.stderr
    id = first.stdout.strip()
    assert "1 of 2 answered, 1 failed." in first.stderr
    assert [line["custom_id"] for line in read(errors)] == ["row-1"]

    told = call(server, "lines", id, "--failed")
    assert told.stdout.split() == [
        *("2", "row-1", "failed", "1"),
        "attempt",
        "400",
        "as",
        "told:",
        "400",
    ]
    told = call(server, "lines", id, "--json")
    assert [json.loads(line)["state"] for line in told.stdout.splitlines()] == [
        "completed",
        "failed",
    ]

    second = call(server, "retry", id, "-o", str(output))
    assert second.returncode == 0, second.stderr
    assert second.stdout.strip() != id
    assert answers(read(output)) == [answer_to("fine"), answer_to("second time lucky")]
    assert not errors.exists()

    nothing = call(server, "retry", second.stdout.strip())
    assert nothing.returncode == 2
    assert "nothing to retry" in nothing.stderr


def test_to_run_again_what_would_be_refused_again_is_not_advised(
    server: Server, tmp_path: Path
) -> None:
    refused = call(server, "submit", str(write(tmp_path, ["a", f"{REFUSED}b"])), "--wait")
    broken = str(Fault(status=500))
    failed = call(server, "submit", str(write(tmp_path, [f"{broken}a", f"{REFUSED}b"])), "--wait")

    assert refused.returncode == failed.returncode == 1
    id = refused.stdout.strip()
    assert refused.stderr.endswith(
        f"`batch-api lines {id} --failed` tells why: the requests themselves were refused, "
        "and would be again.\n"
    )
    id = failed.stdout.strip()
    assert f"--failed` tells why, `batch-api retry {id}` runs them again." in failed.stderr


def test_to_go_on_is_advised_after_a_cancel(server: Server, tmp_path: Path) -> None:
    input = write(tmp_path, [f"{SLOW}{n}" for n in range(1000)])
    id = call(server, "submit", str(input)).stdout.strip()
    until(lambda: server_lines(server, id))

    ended = call(server, "cancel", id, "--wait")

    assert ended.returncode == 1, ended.stderr
    assert f"`batch-api retry {id}` runs what has no answer" in ended.stderr
    assert "--failed" not in ended.stderr


def test_a_batch_that_is_not_valid_is_told_line_by_line(server: Server, tmp_path: Path) -> None:
    input = write(tmp_path, ["fine"])
    input.write_text(input.read_text() + 'nonsense\n{"custom_id": "b"}\n')

    ended = call(server, "submit", str(input), "--wait")

    assert ended.returncode == 2
    assert "its input is not valid, and nothing was run:" in ended.stderr
    assert "line 2: The line is not JSON" in ended.stderr
    assert "line 3: Missing required parameter: 'method'. (missing_required_parameter)" in (
        ended.stderr
    )


def test_what_is_finished_can_be_fetched_before_the_end(server: Server, tmp_path: Path) -> None:
    hangs = Fault(ending="hang")
    input = write(tmp_path, ["fine", f"{REFUSED}no", f"{hangs}for ever"])
    id = call(server, "submit", str(input)).stdout.strip()
    until(lambda: len(server_lines(server, id)) == 2)

    so_far = call(server, "results", id)
    failed = call(server, "results", id, "--errors", "-o", str(tmp_path / "e.jsonl"), "--json")

    assert so_far.returncode == failed.returncode == 1
    assert f"{id} is still in progress: 1 line so far." in so_far.stderr
    assert answers([json.loads(so_far.stdout)]) == [answer_to("fine")]
    assert json.loads(failed.stdout)["lines"] == 1
    assert [line["custom_id"] for line in read(tmp_path / "e.jsonl")] == ["row-1"]

    cancelled = call(server, "cancel", id)
    assert cancelled.returncode == 0
    assert cancelled.stdout.split()[:2] == [id, "cancelling"]


@pytest.mark.slow
def test_ctrl_c_leaves_the_batch_running_and_says_how_to_come_back(
    server: Server, tmp_path: Path
) -> None:
    input = write(tmp_path, [f"{SLOW}{n}" for n in range(400)])
    stderr = tmp_path / "stderr"
    waiting = start(server, "submit", str(input), "--wait", stderr=stderr)

    waiting.send_signal(signal.SIGINT)
    stdout, _ = waiting.communicate(timeout=_SECONDS)

    id = stdout.strip()
    assert waiting.returncode == 130
    assert f"`batch-api watch {id}` comes back." in stderr.read_text()
    assert "Traceback" not in stderr.read_text()
    watched = call(server, "watch", id, "--json")
    assert watched.returncode == 0, watched.stderr
    assert json.loads(watched.stdout)["request_counts"] == {
        "total": 400,
        "completed": 400,
        "failed": 0,
    }


@pytest.mark.slow
def test_who_watches_outlives_a_restart_of_the_server(tmp_path: Path) -> None:
    until_restart = Fault(ending="hang", times=1)
    input = write(tmp_path, [*map(str, range(300)), f"{until_restart}last"])
    stderr = tmp_path / "stderr"
    with StandinProcess(tmp_path) as standin, Server(tmp_path, standin.url) as server:
        id = call(server, "submit", str(input)).stdout.strip()
        watching = start(server, "watch", id, stderr=stderr)
        server.kill()
        until(lambda: "waiting: Can't reach" in stderr.read_text())
        server.start()
        watching.communicate(timeout=_SECONDS)

    assert watching.returncode == 0, stderr.read_text()
    assert "301 of 301 answered" in stderr.read_text()


@pytest.mark.slow
def test_a_person_sees_a_bar(server: Server, tmp_path: Path) -> None:
    input = write(tmp_path, [f"{SLOW}{n}" for n in range(10)])
    terminal, theirs = pty.openpty()
    bar = subprocess.Popen(
        as_process(server, "submit", str(input), "--wait"),
        env=environment(TERM="xterm"),
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)

    shown = drain(terminal)

    assert bar.wait(_SECONDS) == 0
    assert "━" in shown
    assert "10/10" in shown
    assert "lines/s" in shown


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("watch", "batch_1"), "No batch found with id 'batch_1'."),
        (("results", "../../health"), "Not Found"),
        (("submit", "nowhere.jsonl"), "nowhere.jsonl can't be read: No such file or directory."),
        (("submit", __file__), "is a request with a 'url'; the first: "),
        (("watch", "batch_1", "-o", "nowhere/out.jsonl"), "There is no folder"),
    ],
)
def test_a_wrong_call_is_one_sentence(
    server: Server, arguments: Sequence[str], sentence: str
) -> None:
    ended = call(server, *arguments)

    assert ended.returncode == 2
    assert ended.stderr.startswith("batch-api: ")
    assert sentence in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_what_the_server_refuses_leaves_nothing_behind(server: Server, tmp_path: Path) -> None:
    with server.client().with_options(api_key=KEY) as client:
        before = {file.id for file in client.files.list()}

        odd = call(server, "submit", str(write(tmp_path, ["a"])), "--window", "3w")

        assert odd.returncode == 2
        assert "completion_window" in odd.stderr
        assert {file.id for file in client.files.list()} == before


def test_a_wrong_key_and_a_server_that_is_away_are_said(server: Server) -> None:
    refused = calling.call(server.url, "batches", key="wrong")
    away = calling.call("http://127.0.0.1:9/v1", "batches")

    assert (refused.returncode, away.returncode) == (2, 2)
    assert "Incorrect API key provided." in refused.stderr
    assert "Can't reach http://127.0.0.1:9/v1" in away.stderr


def test_help_tells_where_failed_lines_go() -> None:
    told = batch_api("submit", "--help", COLUMNS="300")

    assert "out.errors.jsonl" in told.stdout


def test_without_the_sdk_a_sentence_says_what_to_install() -> None:
    code = "import sys; sys.modules['openai'] = None; from batch_api.cli import app; app()"
    ended = subprocess.run(
        [sys.executable, "-c", code, "batches"], capture_output=True, text=True, check=False
    )

    assert ended.returncode == 2
    assert ended.stderr == (
        "batch-api: This command needs OpenAI's SDK: pip install 'batch-api[client]'.\n"
    )


def test_a_server_tells_how_it_stands(server: Server) -> None:
    told = call(server, "status")
    for_programs = call(server, "status", "--json")

    assert told.returncode == 0, told.stderr
    assert f"{server.url}/v1 is ready" in told.stdout
    assert re.search(r"^disk +ok free=\d+(\.\d)?[KMGT]iB min_free=", told.stdout, re.MULTILINE)
    assert MODEL in told.stdout
    report = json.loads(for_programs.stdout)
    assert report["checks"]["upstreams"]["status"] == "ok"
    assert report["models"] == [MODEL]


@pytest.mark.slow
def test_a_server_without_an_upstream_says_what_is_missing(tmp_path: Path) -> None:
    with Server(tmp_path, "http://127.0.0.1:9") as server:
        told = call(server, "status")

    assert told.returncode == 1, told.stderr
    assert "is not ready" in told.stdout
    assert "away" in told.stdout


def test_shells_complete_the_commands() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "from batch_api.cli import app; app(prog_name='batch-api')"],
        env=environment(
            _BATCH_API_COMPLETE="complete_bash", COMP_WORDS="batch-api re", COMP_CWORD="1"
        ),
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.stdout.split() == ["results", "retry"]


def until(is_so: Any) -> None:
    deadline = time.monotonic() + _SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def server_lines(server: Server, id: str) -> list[Any]:
    """Those that have ended."""
    with server.client().with_options(api_key=KEY) as client:
        page: Any = client.get(
            f"/batches/{id}/lines",
            cast_to=object,
            options={"params": {"state": ["completed", "failed"]}},
        )
    return list(page["data"])
