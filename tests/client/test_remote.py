"""Servers that are none of ours, and calls that can't be made: one sentence, and exit code 2."""

from contextlib import redirect_stdout
from pathlib import Path

import pytest

from batch_api.cli import app
from tests.client.calling import call
from tests.client.scripted import ANSWER, BATCH, Reply, Scripted, told

HTML = b"<html><body>[/p]</body></html>"
PAGE = Reply(HTML, type="text/html")
READY = "GET /ready"

EVERYTHING = [
    *("GET /v1/batches", "GET /v1/batches/batch_1", "GET /v1/batches/batch_1/lines"),
    *("POST /v1/batches/batch_1/cancel", "POST /v1/batches/batch_1/retry", READY),
]
CALLS = [
    *(("batches",), ("watch", "batch_1"), ("results", "batch_1"), ("lines", "batch_1")),
    *(("cancel", "batch_1"), ("retry", "batch_1"), ("status",)),
]


@pytest.mark.parametrize("arguments", CALLS, ids=" ".join)
@pytest.mark.parametrize(
    "reply",
    [PAGE, Reply(HTML), told({"odd": True}), told([])],
    ids=["page", "no JSON", "other JSON", "list"],
)
def test_what_is_no_such_server_is_said(
    scripted: Scripted, arguments: tuple[str, ...], reply: Reply
) -> None:
    for what in EVERYTHING:
        scripted.answers(what, reply)

    ended = call(scripted.url, *arguments)

    assert ended.returncode == 2
    assert ended.stderr.startswith(
        f"batch-api: {scripted.url}/v1 does not answer as a server for batches does"
    )
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "reply",
    [
        told({"error": {"message": "Nobody is there to take the request now."}}, 503),
        Reply(HTML, 502, "text/html"),
    ],
    ids=["503", "502"],
)
def test_the_status_of_a_server_behind_a_proxy_that_cannot_reach_it_is_said(
    scripted: Scripted, reply: Reply
) -> None:
    scripted.answers(READY, reply)

    ended = call(scripted.url, "status")

    assert ended.returncode == 2
    assert ended.stderr.startswith(f"batch-api: {scripted.url}/v1 answers {reply.status}: ")
    assert ended.stderr.count("\n") == 1


def test_a_key_that_no_header_can_carry_is_said(scripted: Scripted) -> None:
    ended = call(scripted.url, "batches", key="ключ")

    assert ended.returncode == 2
    assert ended.stderr == (
        "batch-api: The API key has characters other than ASCII's, and no key has.\n"
    )


@pytest.mark.parametrize("command", ["watch", "results", "lines", "cancel", "retry"])
def test_no_id_is_said(scripted: Scripted, command: str) -> None:
    ended = call(scripted.url, command, "")

    assert ended.returncode == 2
    assert ended.stderr == "batch-api: The id of the batch is empty.\n"
    assert scripted.heard == []


@pytest.mark.parametrize("arguments", [["results", "batch_1"], ["batches"]], ids=" ".join)
def test_a_disk_that_is_full_is_said(
    scripted: Scripted, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    scripted.answers("GET /v1/batches/batch_1", told(BATCH))
    scripted.answers("GET /v1/files/file-out/content", Reply(ANSWER))
    scripted.answers(
        "GET /v1/batches", told({"object": "list", "data": [BATCH], "has_more": False})
    )

    with (
        Path("/dev/full").open("w") as full,
        redirect_stdout(full),
        pytest.raises(SystemExit) as ended,
    ):
        app([*arguments, "--server", scripted.url])

    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "batch-api: Can't write to standard output: No space left on device.\n"
    )
