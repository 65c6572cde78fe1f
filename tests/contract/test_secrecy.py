"""Whatever happens, no key, prompt, answer or label is in a log, however much is logged."""

import json
import sqlite3
import time
import urllib.error
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openai import APIStatusError, OpenAI

from tests.contract.conftest import jsonl, request
from tests.server import Server, StandinProcess
from tests.standin import HALF, MODEL, NO_FAULT, RESET, Fault
from tests.worker.process import WorkerProcess

pytestmark = pytest.mark.slow

KEY = "sk-secret-key-of-the-operator"
SECRET = "xyzzy"  # is in all that is a client's or a model's
FAULTS = {
    f"{SECRET}-html": Fault(body=f"<html>{SECRET}</html>"),
    f"{SECRET}-500": Fault(status=500, body=f"<html>{SECRET}</html>"),
    f"{SECRET}-400": Fault(status=400, body=json.dumps({"error": {"message": SECRET}})),
    f"{SECRET}-half": HALF,
    f"{SECRET}-reset": RESET,
}


@dataclass(frozen=True)
class Said:
    """All that the logs of a program say."""

    log: Path

    def check(self) -> None:
        log = self.log.read_text()
        assert '"level": "' in log or "listens on" in log
        telling = [line[:2_000] for line in log.split("\n") if SECRET in line or KEY in line]
        assert telling == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("secrecy")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    settings = {"api_key": KEY, "log_level": "debug", "max_attempts": 1}
    with (
        StandinProcess(folder) as standin,
        Server(folder, standin.url, settings=settings) as server,
    ):
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def test_a_job_and_its_errors_leave_no_trace_of_what_was_said(
    folder: Path, server: Server, client: OpenAI
) -> None:
    faults = {f"{SECRET}-{number}": NO_FAULT for number in range(5)} | FAULTS
    lines = [request(name, f"{fault}{SECRET}") for name, fault in faults.items()]
    file = client.files.create(file=(f"{SECRET}.jsonl", jsonl(lines)), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"label": SECRET},
    )
    deadline = time.monotonic() + 90
    while batch.status != "completed":
        assert time.monotonic() < deadline, batch
        time.sleep(0.05)
        batch = client.batches.retrieve(batch.id)

    assert batch.request_counts is not None
    assert (batch.request_counts.completed, batch.request_counts.failed) == (5, len(FAULTS))
    assert "attempt failed" in (folder / "server.log").read_text()
    Said(folder / "server.log").check()


def test_requests_that_are_refused_leave_none_either(
    folder: Path, server: Server, client: OpenAI
) -> None:
    def refused(call: Any, *given: Any, **named: Any) -> None:
        with pytest.raises(APIStatusError):
            call(*given, **named)

    message: Any = {"role": "user", "content": SECRET}
    client.chat.completions.create(model=MODEL, messages=[message])
    client.files.create(file=(f"{SECRET}.jsonl", SECRET.encode()), purpose="user_data")
    bad: Any = {"role": "user", "content": f"{FAULTS[f'{SECRET}-400']}{SECRET}"}
    refused(client.chat.completions.create, model=MODEL, messages=[bad])
    refused(client.files.create, file=SECRET.encode(), purpose="batch")
    refused(client.files.retrieve, SECRET)
    refused(client.batches.list, after=SECRET)
    refused(client.with_options(api_key=f"sk-{SECRET}").files.list)
    for path in (f"/{SECRET}", f"/v1/files/{SECRET}?a={SECRET}"):
        with pytest.raises(urllib.error.HTTPError) as error:
            server.fetch(path, method="POST", body=SECRET.encode())
        error.value.close()

    Said(folder / "server.log").check()


def test_a_database_that_fails_says_nothing_of_what_was_to_be_stored(
    folder: Path, server: Server, client: OpenAI
) -> None:
    file = client.files.create(file=b'{"a": 1}\n', purpose="batch")
    with closing(sqlite3.connect(server.data_dir / "batch-api.db")) as database:
        database.execute(
            "CREATE TRIGGER t BEFORE INSERT ON batches BEGIN SELECT RAISE(ABORT, 'no'); END"
        )

    with pytest.raises(APIStatusError) as broken:
        client.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={"label": SECRET},
        )

    assert broken.value.status_code == 500
    assert "unexpected error" in (folder / "server.log").read_text()
    Said(folder / "server.log").check()


def test_a_worker_says_nothing_of_what_it_reads_and_writes(tmp_path: Path) -> None:
    with (
        WorkerProcess(tmp_path, "--model", "demo", "--log-level", "debug") as worker,
        OpenAI(base_url=f"{worker.url}/v1", api_key=f"sk-{SECRET}", max_retries=0) as client,
    ):
        say: Any = {"role": "user", "content": f"Repeat the word {SECRET}."}
        client.chat.completions.create(model="demo", messages=[say], user=SECRET)
        with suppress(APIStatusError):
            client.chat.completions.create(model=SECRET, messages=[say])
        with suppress(APIStatusError):
            client.chat.completions.create(model="demo", messages=[say], temperature=9)
        for event in client.chat.completions.create(model="demo", messages=[say], stream=True):
            assert event.model == "demo"
            break

    Said(tmp_path / "worker.log").check()
