"""A data folder in which much has happened, as a server leaves it that is killed while it works."""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copytree
from typing import Any

import msgspec
from openai import OpenAI
from openai.types import Batch

from batch_api.lifecycle import BatchStatus
from batch_api.store.blobs import BLOBS_FOLDER
from batch_api.store.database import DATABASE_NAME
from tests.server import Server, StandinProcess
from tests.standin import MODEL, NO_FAULT, Fault

_CHAT = "/v1/chat/completions"
_POLL_SECONDS = 0.05
_REFUSED = Fault(status=400)
_HANGS = Fault(ending="hang", times=1)
_PATIENCE_SECONDS = 60
_UNTRIMMED = (
    "SELECT 1 FROM batches WHERE status IN ('completed', 'cancelled') AND trimmed_at IS NULL"
)


@dataclass(frozen=True, slots=True)
class LivedIn:
    """Of `completed`, four lines were answered and one refused; of `running`, three answered."""

    data_dir: Path
    completed: Batch
    cancelled: Batch
    failed: Batch
    running: Batch
    """Two of its lines were in flight."""
    upload_id: str
    part_id: str
    spare_file_id: str
    """Of a file that no batch speaks of."""

    def copy(self, folder: Path) -> "LivedIn":
        copytree(self.data_dir, folder)
        return replace(self, data_dir=folder)

    def blob(self, id: str | None) -> Path:
        assert id is not None
        return self.data_dir / BLOBS_FOLDER / id

    @contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        """To damage it: what is written to it is committed."""
        path = self.data_dir / DATABASE_NAME
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("PRAGMA ignore_check_constraints = ON")
            yield connection

    def execute(self, statement: str, *values: Any) -> list[Any]:
        with self.database() as connection:
            return connection.execute(statement, values).fetchall()


def live(folder: Path) -> LivedIn:
    with (
        StandinProcess(folder) as standin,
        Server(folder, standin.url) as server,
        server.client() as client,
    ):
        completed = _start(client, _lines("completed", [*[NO_FAULT] * 4, _REFUSED]))
        cancelled = _start(client, _lines("cancelled", [NO_FAULT, _HANGS]))
        failed = _start(client, b'{"no": "line of ours"}\n')
        running = _start(client, _lines("running", [NO_FAULT] * 3 + [_HANGS] * 2))
        spare = client.files.create(
            file=("spare.jsonl", _lines("spare", [NO_FAULT])), purpose="batch"
        )
        upload = client.uploads.create(
            bytes=10, filename="parts.jsonl", mime_type="application/jsonl", purpose="batch"
        )
        part = client.uploads.parts.create(upload.id, data=b"12345")
        cancelled = _until_answered(client, cancelled, 1)
        client.batches.cancel(cancelled.id)
        lived_in = LivedIn(
            server.data_dir,
            completed=finished(client, completed),
            cancelled=cancelled,
            failed=finished(client, failed),
            running=_until_answered(client, running, 3),
            upload_id=upload.id,
            part_id=part.id,
            spare_file_id=spare.id,
        )
        standin.kill()  # so that nothing hangs any more, and the cancelled batch ends
        lived_in = replace(lived_in, cancelled=finished(client, cancelled))
        _until_trimmed(lived_in)
        server.kill()
    return lived_in


def _lines(name: str, faults: Sequence[Fault]) -> bytes:
    return b"".join(_line(f"{name}-{n}", fault) for n, fault in enumerate(faults, 1))


def _line(custom_id: str, fault: Fault) -> bytes:
    body = {"model": MODEL, "messages": [{"role": "user", "content": f"{fault}{custom_id}"}]}
    fields = {"custom_id": custom_id, "method": "POST", "url": _CHAT, "body": body}
    return msgspec.json.encode(fields) + b"\n"


def _start(client: OpenAI, content: bytes) -> Batch:
    file = client.files.create(file=("in.jsonl", content), purpose="batch")
    return client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )


def finished(client: OpenAI, batch: Batch) -> Batch:
    return until(client, batch, lambda it: BatchStatus(it.status).is_final)


def _until_answered(client: OpenAI, batch: Batch, lines: int) -> Batch:
    return until(client, batch, lambda it: _completed(it) >= lines)


def _completed(batch: Batch) -> int:
    assert batch.request_counts is not None
    return batch.request_counts.completed


def until(client: OpenAI, batch: Batch, is_so: Any) -> Batch:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not is_so(batch):
        assert time.monotonic() < deadline, f"it takes too long: {batch}"
        time.sleep(_POLL_SECONDS)
        batch = client.batches.retrieve(batch.id)
    return batch


def _until_trimmed(lived_in: LivedIn) -> None:
    """So that each folder is the same."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    uri = f"{(lived_in.data_dir / DATABASE_NAME).as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as database:
        while database.execute(_UNTRIMMED).fetchone() is not None:
            assert time.monotonic() < deadline, "answers stay in the database"
            time.sleep(_POLL_SECONDS)
