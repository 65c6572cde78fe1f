"""`batch-api run` as a subprocess, against the stand-in."""

import gzip
import json
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.faults.remains import read_remains
from tests.receiver import Receiver
from tests.server import StandinProcess
from tests.standin import HANG, MODEL, Fault, answer_to

pytestmark = pytest.mark.slow

_POLL_SECONDS = 0.02
_SECONDS = 60


@pytest.fixture
def standin(tmp_path: Path) -> Iterator[StandinProcess]:
    with StandinProcess(tmp_path, delay_ms=20) as standin:
        yield standin


def test_all_answers_come_in_input_order_and_nothing_else_stays(
    tmp_path: Path, standin: StandinProcess
) -> None:
    texts = [f"text {n}" for n in range(300)]

    ended = _run(tmp_path, standin, _lines(texts))

    assert ended.returncode == 0, ended.stderr
    assert _answers(tmp_path / "out.jsonl") == [answer_to(text) for text in texts]
    assert "300 of 300 lines answered" in ended.stderr
    assert _files(tmp_path) == ["in.jsonl", "out.jsonl"]


def test_a_packed_input_is_run_unpacked(tmp_path: Path, standin: StandinProcess) -> None:
    texts = [f"text {n}" for n in range(20)]

    ended = _run(tmp_path, standin, gzip.compress(_lines(texts)))

    assert ended.returncode == 0, ended.stderr
    assert _answers(tmp_path / "out.jsonl") == [answer_to(text) for text in texts]


def test_a_packed_input_that_is_cut_short_runs_nothing(
    tmp_path: Path, standin: StandinProcess
) -> None:
    ended = _run(tmp_path, standin, gzip.compress(_lines(["a"] * 10_000))[:-4])

    assert ended.returncode == 2
    assert "in.jsonl is not whole, or not what gzip writes: " in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not standin.served()


def test_an_input_for_which_there_is_no_room_is_refused_in_one_sentence(
    tmp_path: Path, standin: StandinProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_API_MIN_FREE_BYTES", str(1 << 60))

    ended = _run(tmp_path, standin, gzip.compress(_lines(["a"])))

    assert ended.returncode == 2
    assert "in.jsonl can't be copied: the room that is left is kept free." in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_failed_line_is_told_with_its_reason_and_the_exit_code(
    tmp_path: Path, standin: StandinProcess
) -> None:
    refused = str(Fault(status=400)) + "no"

    ended = _run(tmp_path, standin, _lines(["yes", refused, "yes too"]))

    assert ended.returncode == 1
    assert "1 failed" in ended.stderr
    assert "1 x 400" in ended.stderr
    assert [line["custom_id"] for line in _read(tmp_path / "out.jsonl")] == ["0", "2"]
    assert [line["custom_id"] for line in _read(tmp_path / "out.errors.jsonl")] == ["1"]


@pytest.mark.parametrize(
    "body",
    ['{"error": null}', '{"error": {"message": null}}', '{"error": ["x"]}'],
)
def test_a_failed_line_without_a_reason_is_told_with_its_status(
    tmp_path: Path, standin: StandinProcess, body: str
) -> None:
    ended = _run(tmp_path, standin, _lines([str(Fault(status=400, body=body)) + "no"]))

    assert ended.returncode == 1, ended.stderr
    assert "1 x 400 without a reason" in ended.stderr


def test_a_job_tells_no_receiver_of_webhooks(
    tmp_path: Path, standin: StandinProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Receiver() as receiver:
        monkeypatch.setenv("BATCH_API_WEBHOOK_URLS", json.dumps([receiver.url()]))
        ended = _run(tmp_path, standin, _lines(["text"]))

        assert ended.returncode == 0, ended.stderr
        assert receiver.heard == []


def test_a_killed_job_goes_on_where_it_stopped(tmp_path: Path, standin: StandinProcess) -> None:
    texts = [f"text {n}" for n in range(2000)]
    first = _start(tmp_path, standin, _lines(texts))
    _wait_until_answered(standin, 1200)
    first.kill()
    first.communicate()
    standin.wait_until_left()
    received = sum(standin.served().values())
    remains = shutil.copytree(_state(tmp_path), tmp_path / "remains")
    ended = len(read_remains(remains, _only_batch(remains)).ended)

    second = _run(tmp_path, standin, _lines(texts))

    assert second.returncode == 0, second.stderr
    assert _answers(tmp_path / "out.jsonl") == [answer_to(text) for text in texts]
    assert ended > 0, (received, ended)
    assert sum(standin.served().values()) <= received + 2000 - ended


def test_an_interrupted_job_says_how_to_go_on(tmp_path: Path, standin: StandinProcess) -> None:
    job = _start(tmp_path, standin, _lines([f"text {n}" for n in range(2000)]))
    _wait_until_answered(standin, 100)

    job.terminate()
    _, stderr = job.communicate(timeout=_SECONDS)

    assert job.returncode == 130
    assert "The same command goes on from here." in stderr
    assert _run(tmp_path, standin, None).returncode == 0
    assert sum(standin.served().values()) == 2000


def test_an_interrupted_job_waits_for_what_is_in_flight_and_says_so(
    tmp_path: Path, standin: StandinProcess
) -> None:
    job = _start(tmp_path, standin, _lines([f"{HANG}slow"]))
    assert job.stderr is not None
    standin.wait_until_received(1)
    job.terminate()
    while "Waiting for what is in flight" not in (line := job.stderr.readline()):
        assert line, "it ends"
    job.terminate()
    job.communicate(timeout=_SECONDS)


def test_an_interrupted_job_with_nothing_in_flight_does_not_say_that_it_waits(
    tmp_path: Path, standin: StandinProcess
) -> None:
    standin.kill()
    job = _start(tmp_path, standin, _lines(["text"]))
    assert job.stderr is not None
    while "waiting: " not in (line := job.stderr.readline()):
        assert line, "it ends"
    job.terminate()
    _, said = job.communicate(timeout=_SECONDS)

    assert job.returncode == 130
    assert "in flight" not in said
    assert "The same command goes on from here." in said


def test_answers_that_were_written_are_not_lost_to_a_half_removed_state(
    tmp_path: Path, standin: StandinProcess
) -> None:
    job = _start(tmp_path, standin, _lines([f"{Fault(delay_ms=3000)}kept"]))
    standin.wait_until_received(1)
    (tmp_path / "out.jsonl").mkdir()
    _, said = job.communicate(timeout=_SECONDS)
    assert job.returncode == 2
    assert "out.jsonl can't be written: Is a directory." in said
    assert not list(tmp_path.glob("*.unfinished"))
    (tmp_path / "out.jsonl").rmdir()
    (tmp_path / "out.jsonl").write_text("written by an earlier call")
    shutil.rmtree(_state(tmp_path) / "files")

    ended = _run(tmp_path, standin, None)

    assert ended.returncode == 2
    assert "None of the files that the database speaks of is in" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert (tmp_path / "out.jsonl").read_text() == "written by an earlier call"


def test_what_a_killed_call_was_removing_is_removed_by_the_next(
    tmp_path: Path, standin: StandinProcess
) -> None:
    removed = tmp_path / ".out.jsonl.batch-api.removed"
    removed.mkdir()
    (removed / "batch-api.db").write_text("half")

    assert _run(tmp_path, standin, _lines(["once"])).returncode == 0
    assert _files(tmp_path) == ["in.jsonl", "out.jsonl"]


def test_a_job_of_another_input_is_not_mixed_up_with_it(
    tmp_path: Path, standin: StandinProcess
) -> None:
    job = _start(tmp_path, standin, _lines([f"text {n}" for n in range(2000)]))
    _wait_until_answered(standin, 100)
    job.terminate()
    job.communicate(timeout=_SECONDS)

    other = _run(tmp_path, standin, _lines(["another"]))

    assert other.returncode == 2
    assert "unfinished job of another input" in other.stderr


def test_a_job_does_not_go_on_with_another_model_or_upstream(
    tmp_path: Path, standin: StandinProcess
) -> None:
    job = _start(tmp_path, standin, _lines([f"text {n}" for n in range(2000)]))
    _wait_until_answered(standin, 100)
    job.terminate()
    job.communicate(timeout=_SECONDS)

    other = _run(tmp_path, standin, None, "--upstream", "http://127.0.0.1:9")

    assert other.returncode == 2
    assert f"runs on {standin.url}, not on" in other.stderr
    assert _run(tmp_path, standin, None).returncode == 0


def test_an_invalid_input_is_refused_line_by_line(tmp_path: Path, standin: StandinProcess) -> None:
    lines = _lines(["fine", "fine too"])

    ended = _run(tmp_path, standin, lines + b"nonsense\n" + lines[: lines.index(b"\n") + 1])

    assert ended.returncode == 2
    assert "line 3: " in ended.stderr
    assert "line 4: " in ended.stderr
    assert _files(tmp_path) == ["in.jsonl"]


def test_a_first_line_that_is_no_request_is_told_with_the_others(
    tmp_path: Path, standin: StandinProcess
) -> None:
    ended = _run(tmp_path, standin, b"nonsense\n" + _lines(["fine"]) + b"{}\n")

    assert ended.returncode == 2
    assert "line 1: " in ended.stderr
    assert "line 2: " not in ended.stderr
    assert "line 3: " in ended.stderr


@pytest.mark.parametrize("content", [b"", b"{}\n", b"\xff\n"])
def test_an_input_without_a_first_request_is_refused_in_one_sentence(
    tmp_path: Path, standin: StandinProcess, content: bytes
) -> None:
    ended = _run(tmp_path, standin, content)

    assert ended.returncode == 2
    assert ended.stderr.startswith("batch-api: ")
    assert ended.stderr.count("\n") == 1


def test_a_missing_input_is_refused_in_one_sentence(
    tmp_path: Path, standin: StandinProcess
) -> None:
    ended = _run(tmp_path, standin, None)

    assert ended.returncode == 2
    assert (
        ended.stderr
        == f"batch-api: {tmp_path / 'in.jsonl'} can't be read: No such file or directory.\n"
    )


@pytest.mark.parametrize(
    ("input", "output", "why"),
    [
        ("in.jsonl", "in.jsonl", "is the input"),
        ("out.errors.jsonl", "out.jsonl", "is the input"),
        ("in.jsonl", ".", "is not a file"),
        ("in.jsonl", "nowhere/out.jsonl", "no folder"),
    ],
)
def test_an_output_that_can_not_be_written_is_refused_before_anything_runs(
    tmp_path: Path, input: str, output: str, why: str
) -> None:
    content = _lines(["kept"])
    (tmp_path / input).write_bytes(content)
    command = [sys.executable, "-m", "batch_api", "run", input, "-o", output]

    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert ended.returncode == 2
    assert ended.stderr.startswith("batch-api: ")
    assert why in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert (tmp_path / input).read_bytes() == content
    assert _files(tmp_path) == [input]


def _run(
    folder: Path, standin: StandinProcess, content: bytes | None, *options: str
) -> subprocess.CompletedProcess[str]:
    process = _start(folder, standin, content, *options)
    stdout, stderr = process.communicate(timeout=_SECONDS)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def _start(
    folder: Path, standin: StandinProcess, content: bytes | None, *options: str
) -> "subprocess.Popen[str]":
    if content is not None:
        (folder / "in.jsonl").write_bytes(content)
    command = [sys.executable, "-m", "batch_api", "run", str(folder / "in.jsonl")]
    command += ["-o", str(folder / "out.jsonl"), "--upstream", standin.url, *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _state(folder: Path) -> Path:
    return folder / ".out.jsonl.batch-api"


def _only_batch(state: Path) -> str:
    with closing(sqlite3.connect(state / "batch-api.db")) as database:
        ((id,),) = database.execute("SELECT id FROM batches").fetchall()
    return str(id)


def _wait_until_answered(standin: StandinProcess, count: int) -> None:
    deadline = time.monotonic() + _SECONDS
    while sum(event == "answered" for event, _ in standin.seen()) < count:
        assert time.monotonic() < deadline
        time.sleep(_POLL_SECONDS)


def _lines(texts: Sequence[str]) -> bytes:
    return b"".join(
        json.dumps(
            {
                "custom_id": str(number),
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": MODEL, "messages": [{"role": "user", "content": text}]},
            }
        ).encode()
        + b"\n"
        for number, text in enumerate(texts)
    )


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def _answers(path: Path) -> list[str]:
    return [line["response"]["body"]["choices"][0]["message"]["content"] for line in _read(path)]


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("standin"))
