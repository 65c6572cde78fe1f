"""Who waits for a batch outlives a server that is away for a while."""

from pathlib import Path

from tests.client.calling import call
from tests.client.scripted import ANSWER, BATCH, LOST, Reply, Scripted, refusal, told

READY = "GET /ready"
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


def test_who_watches_is_told_what_the_server_waits_for(scripted: Scripted) -> None:
    running = told(BATCH | {"status": "in_progress"})
    loading = {"status": "loading", "reason": "a worker is loading its model"}
    scripted.answers(GET, *[running] * 4, told(BATCH))
    report = {"status": "not ready", "checks": {"disk": {"status": "ok"}, "upstreams": loading}}
    scripted.answers(READY, told(report, 503), told({"status": "ready"}))

    ended = call(scripted.url, "watch", "batch_1")

    said = [line for line in ended.stderr.splitlines() if line.startswith("in progress")]
    progress = "in progress: 2 of 2 lines, 0 failed"
    assert said == [progress, f"{progress}; waiting: a worker is loading its model", progress]


def test_a_server_that_does_not_tell_whether_it_is_ready_is_asked_once(scripted: Scripted) -> None:
    scripted.answers(GET, *[told(BATCH | {"status": "in_progress"})] * 4, told(BATCH))

    ended = call(scripted.url, "watch", "batch_1")

    assert ended.returncode == 0, ended.stderr
    assert scripted.count(READY) == 1


def test_of_a_server_of_others_that_tells_otherwise_nothing_is_told(scripted: Scripted) -> None:
    scripted.answers(GET, *[told(BATCH | {"status": "in_progress"})] * 4, told(BATCH))
    scripted.answers(READY, told({"status": "UP"}))

    ended = call(scripted.url, "watch", "batch_1")

    assert "waiting" not in ended.stderr
    assert scripted.count(READY) > 1


def test_what_is_finalizing_waits_for_no_upstream(scripted: Scripted) -> None:
    scripted.answers(GET, *[told(BATCH | {"status": "finalizing"})] * 4, told(BATCH))

    call(scripted.url, "watch", "batch_1")

    assert scripted.count(READY) == 0


def test_a_server_that_is_away_is_told_in_words() -> None:
    ended = call("http://127.0.0.1:9", "batches")

    assert ended.stderr == "batch-api: Can't reach http://127.0.0.1:9/v1: connection refused.\n"


def test_a_batch_that_was_cancelled_unread_is_to_be_submitted_again(scripted: Scripted) -> None:
    counts = {"total": 0, "completed": 0, "failed": 0}
    scripted.answers(GET, told(BATCH | {"status": "cancelled", "request_counts": counts}))

    ended = call(scripted.url, "watch", "batch_1")

    assert ended.returncode == 1
    assert "submit the file again" in ended.stderr
    assert "retry" not in ended.stderr


def test_who_was_cancelled_with_all_answers_is_told_so(scripted: Scripted) -> None:
    scripted.answers(GET, told(BATCH | {"status": "cancelled"}))

    ended = call(scripted.url, "watch", "batch_1")

    assert ended.returncode == 1
    assert ended.stderr.endswith("All of its lines were answered before it ended.\n")


def test_of_a_server_without_our_routes_only_what_it_has_is_advised(scripted: Scripted) -> None:
    counts = {"total": 2, "completed": 1, "failed": 1}
    facts = {"request_counts": counts, "error_file_id": "file-err"}
    scripted.answers(GET, told(BATCH | facts))

    ended = call(scripted.url, "watch", "batch_1")

    assert "`batch-api results batch_1 --errors` tells why" in ended.stderr
    assert "retry" not in ended.stderr
