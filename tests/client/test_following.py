"""Who waits for a batch outlives a server that is away for a while."""

from pathlib import Path

from tests.client.calling import call
from tests.client.scripted import ANSWER, BATCH, LOST, Reply, Scripted, refusal, told

GET = "GET /v1/batches/batch_1"
CONTENT = "GET /v1/files/file-out/content"


def test_who_begins_to_watch_while_the_server_is_away_waits_for_it(scripted: Scripted) -> None:
    scripted.answers(GET, LOST, LOST, LOST, told(BATCH))

    ended = call(scripted.url, "watch", "batch_1")

    assert ended.returncode == 0, ended.stderr
    assert "waiting: Can't reach" in ended.stderr
    assert "2 of 2 answered" in ended.stderr


def test_who_watches_waits_when_told_to_slow_down(scripted: Scripted) -> None:
    slow_down = refusal(429, "Slow down.")
    running = told(BATCH | {"status": "in_progress"})
    scripted.answers(GET, running, slow_down, slow_down, slow_down, told(BATCH))

    ended = call(scripted.url, "watch", "batch_1")

    assert ended.returncode == 0, ended.stderr
    assert "waiting: " in ended.stderr
    assert "Slow down." in ended.stderr


def test_who_waits_for_answers_outlives_a_download_that_breaks_off(
    scripted: Scripted, tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    scripted.answers(GET, told(BATCH))
    cut, whole = Reply(ANSWER, ending="cut"), Reply(2 * ANSWER)
    scripted.answers(CONTENT, cut, LOST, LOST, LOST, whole)

    ended = call(scripted.url, "watch", "batch_1", "-o", str(output))

    assert ended.returncode == 0, ended.stderr
    assert output.read_bytes() == 2 * ANSWER
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]
