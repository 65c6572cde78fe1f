"""Answers that break off, are none, or are nonsense: a sentence, and the file is as it was."""

from pathlib import Path

import pytest

from tests.client.calling import call
from tests.client.scripted import ANSWER, BATCH, Reply, Scripted, told

GET = "GET /v1/batches/batch_1"
CONTENT = "GET /v1/files/file-out/content"
SO_FAR = "GET /v1/batches/batch_1/results"
RUNNING = BATCH | {"status": "in_progress", "output_file_id": None}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    path = tmp_path / "out.jsonl"
    path.write_text("as it was\n")
    return path


@pytest.mark.parametrize(("batch", "path"), [(BATCH, CONTENT), (RUNNING, SO_FAR)])
def test_a_download_that_breaks_off_is_said(
    scripted: Scripted, output: Path, batch: dict[str, object], path: str
) -> None:
    scripted.answers(GET, told(batch))
    scripted.answers(path, Reply(ANSWER, ending="cut"))

    ended = call(scripted.url, "results", "batch_1", "-o", str(output))

    assert ended.returncode == 2
    assert ended.stderr.startswith(f"batch-api: {scripted.url}/v1 broke off")
    assert output.read_text() == "as it was\n"
    assert [it.name for it in output.parent.iterdir()] == [output.name]


def test_a_last_line_that_is_not_whole_is_said(scripted: Scripted) -> None:
    scripted.answers(GET, told(RUNNING))
    scripted.answers(SO_FAR, Reply(ANSWER + ANSWER[:-1]))

    ended = call(scripted.url, "results", "batch_1")

    assert ended.returncode == 2
    assert "broke off" in ended.stderr
    assert ended.stdout == ANSWER.decode()


def test_a_line_of_many_pieces_is_whole(scripted: Scripted) -> None:
    long = ANSWER.replace(b'"a"', b'"' + b"a" * 1_000_000 + b'"')
    scripted.answers(GET, told(RUNNING))
    scripted.answers(SO_FAR, Reply(ANSWER + long + ANSWER))

    ended = call(scripted.url, "results", "batch_1")

    assert ended.returncode == 1
    assert ended.stdout.encode() == ANSWER + long + ANSWER


def test_a_line_that_is_not_json_is_said(scripted: Scripted) -> None:
    scripted.answers(GET, told(RUNNING))
    scripted.answers(SO_FAR, Reply(b"<html>\n"))

    ended = call(scripted.url, "results", "batch_1")

    assert ended.returncode == 2
    assert "a line that is not an answer" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_where_there_is_nothing_to_fetch_the_file_stays(scripted: Scripted, output: Path) -> None:
    scripted.answers(GET, told(BATCH))
    no_errors = call(scripted.url, "results", "batch_1", "--errors", "-o", str(output))
    scripted.answers(GET, told(BATCH | {"status": "failed", "output_file_id": None}))
    no_answers = call(scripted.url, "results", "batch_1", "-o", str(output))

    assert (no_errors.returncode, no_answers.returncode) == (2, 2)
    assert no_errors.stderr == "batch-api: batch_1 completed and has no failed lines.\n"
    assert no_answers.stderr == "batch-api: batch_1 failed and has no answers.\n"
    assert output.read_text() == "as it was\n"


def test_a_file_of_another_batch_is_said_to_be_removed(scripted: Scripted, output: Path) -> None:
    none = {"output_file_id": None, "request_counts": {"total": 2, "completed": 0, "failed": 0}}
    scripted.answers(GET, told(BATCH | {"status": "expired"} | none))

    ended = call(scripted.url, "watch", "batch_1", "-o", str(output))

    assert ended.returncode == 1
    assert f"{output} is removed: batch_1 has nothing for it." in ended.stderr
    assert not output.exists()
    assert "errors" not in ended.stderr
