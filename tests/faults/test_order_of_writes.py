"""What the kernel was asked, in which order: all is on the disk before anybody is told.

`kill -9` can't show this: what was written survives it, synced or not. Not so a power cut.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.job import Job
from tests.faults.strace import Call, Step, answer, calls, check_order, first, then, tracing
from tests.server import Server, StandinProcess
from tests.standin import MODEL, Fault

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace"),
]

_WAL = "/batch-api.db-wal>"
_SYNCED = then("fdatasync", _WAL)


@dataclass(frozen=True, slots=True)
class Traced:
    """A server's life: one batch that completes, and one that is cancelled."""

    trace: Sequence[Call]
    data_dir: Path
    completed: Job
    cancelled: Job
    output_file_id: str


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Traced:
    folder = tmp_path_factory.mktemp("traced")
    completed, cancelled = Job(["a", "b"]), Job(["c"], faults={"c": Fault(ending="hang")})
    settings = {"cancel_grace_seconds": 0}
    with (
        StandinProcess(folder) as standin,
        Server(folder, standin.url, settings=settings, under=tracing(folder / "trace")) as server,
        server.client(max_retries=0) as client,
    ):
        completed.create(client)
        batch = completed.complete(server, client)
        cancelled.create(client)
        client.batches.cancel(cancelled.batch_id)
        cancelled.end(server, client)
    assert batch.output_file_id is not None
    trace = calls(folder / "trace")
    return Traced(trace, server.data_dir, completed, cancelled, batch.output_file_id)


def test_a_new_data_folder_is_on_the_disk_before_anything_is_answered(traced: Traced) -> None:
    data = str(traced.data_dir)
    made = check_order(
        traced.trace,
        first("mkdir", f'"{data}"'),
        then("fsync", f"<{traced.data_dir.parent}>"),
        first("mkdir", f'"{data}/files"'),
        then("fsync", f"<{data}>"),
    )

    assert made.ended < answer(traced.trace, "alive").began


def test_a_file_is_on_the_disk_before_its_row_and_its_row_before_the_answer(
    traced: Traced,
) -> None:
    id = traced.completed.file_id

    committed = check_order(traced.trace, *_published(id), first("pwrite64", _WAL, id), _SYNCED)
    assert committed.ended < answer(traced.trace, id).began


def test_a_batch_is_on_the_disk_before_the_answer(traced: Traced) -> None:
    id = traced.completed.batch_id

    committed = check_order(traced.trace, first("pwrite64", _WAL, id), _SYNCED)
    assert committed.ended < answer(traced.trace, id).began


def test_a_cancel_is_on_the_disk_before_the_answer(traced: Traced) -> None:
    committed = check_order(traced.trace, first("pwrite64", _WAL, "24hcancelling"), _SYNCED)

    told = answer(traced.trace, traced.cancelled.batch_id, r"\"status\":\"cancelling\"")
    assert committed.ended < told.began


def test_the_output_is_on_the_disk_before_the_end_and_the_end_before_it_is_told(
    traced: Traced,
) -> None:
    row = first("pwrite64", _WAL, f"{traced.completed.batch_id}_output.jsonl")
    end = first("pwrite64", _WAL, f"24h{MODEL}completed")

    for page in (row, end):
        committed = check_order(traced.trace, *_published(traced.output_file_id), page, _SYNCED)
        assert committed.ended < answer(traced.trace, r"\"status\":\"completed\"").began


def _published(id: str) -> list[Step]:
    unfinished = f"/files/{id}.unfinished"
    return [
        first("write", f"{unfinished}>"),
        first("fsync", f"{unfinished}>"),
        first("rename", f'{unfinished}"', f'/files/{id}"'),
        then("fsync", "/files>"),
    ]
