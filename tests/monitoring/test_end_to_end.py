"""A real server with its own worker: ready when it can answer, and counting what it did."""

import json
import time
import urllib.error
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.request import urlopen

import pytest
from openai import OpenAI
from openai.types import Batch

from tests.monitoring.rules import named_in_alerts, named_in_dashboard
from tests.scraping import Scrape
from tests.server import Server

pytestmark = pytest.mark.slow

_CHAT = "/v1/chat/completions"
_LINES = 30
_SECONDS = 60
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Begun:
    server: Server
    refusals: list[dict[str, Any]]
    """What `/ready` said until it was ready."""
    first_chat: Any
    """Asked in the very moment that it was."""


@dataclass(frozen=True, slots=True)
class Done:
    batch: Batch
    server: Scrape
    worker: Scrape


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Begun]:
    server = Server(tmp_path_factory.mktemp("monitored"))
    with server:
        refusals = list(_refusals(server))
        with server.client(max_retries=0) as client:
            yield Begun(server, refusals, _chat(client))


@pytest.fixture(scope="module")
def done(begun: Begun) -> Done:
    """A batch with one line that is not valid, beside the first chat."""
    with begun.server.client() as client:
        batch = _run(client)
    server = Scrape.of(begun.server.fetch("/metrics"))
    (upstream,) = server.all("batch_api_upstream_up")
    with urlopen(f"{upstream.labels['upstream']}/metrics", timeout=10) as answer:
        return Done(batch, server, Scrape.of(answer.read()))


def test_while_its_worker_loads_the_server_is_not_ready_and_says_so(begun: Begun) -> None:
    checks = [refusal["checks"]["upstreams"]["status"] for refusal in begun.refusals]
    said = [refusal["error"]["message"] for refusal in begun.refusals]

    assert "loading" in checks
    assert set(checks) <= {"away", "loading"}
    assert "Not ready: a worker is loading its model." in said


def test_as_soon_as_it_is_ready_it_answers(begun: Begun) -> None:
    assert begun.first_chat.choices[0].message.content == "4"


def test_the_server_counts_what_its_batch_says(done: Done) -> None:
    counts, usage = done.batch.request_counts, done.batch.usage
    assert counts is not None
    assert usage is not None

    assert (counts.completed, counts.failed) == (_LINES, 1)
    ended = "batch_api_lines_ended_total"
    assert done.server.value(ended, outcome="completed") == counts.completed
    assert done.server.value(ended, outcome="failed") == counts.failed
    assert done.server.value("batch_api_input_tokens_total") == usage.input_tokens
    assert done.server.value("batch_api_output_tokens_total") == usage.output_tokens
    duration = "batch_api_batch_duration_seconds_count"
    assert done.server.value(duration, status="completed") == 1
    assert done.server.value("batch_api_commit_seconds_count") >= 1
    requests = "batch_api_http_requests_total"
    assert done.server.value(requests, route="/v1/batches", method="POST", status="200") == 1
    assert done.server.value(requests, route=_CHAT, status="200") == 1
    assert done.server.value("batch_api_lines") == 0


def test_the_worker_counts_what_its_clients_were_told(begun: Begun, done: Done) -> None:
    usage, chat = done.batch.usage, begun.first_chat.usage
    assert usage is not None

    tokens = "vllm:prompt_tokens_total"
    assert done.worker.value(tokens) == usage.input_tokens + chat.prompt_tokens
    written = usage.output_tokens + chat.completion_tokens
    assert done.worker.value("vllm:generation_tokens_total") == written
    assert done.worker.value("vllm:request_success_total") == _LINES + 1
    assert done.worker.value("vllm:request_queue_time_seconds_count") == _LINES + 1


def test_what_alerts_and_dashboard_speak_of_is_there(done: Done) -> None:
    there = done.server.names | done.worker.names | {"up"}
    of_gpus = {
        f"batch_api_gpu_{name}"
        for name in ("utilization_ratio", "memory_used_bytes", "memory_total_bytes")
    }
    of_deadlines = {"batch_api_deadline_margin_seconds"}
    of_streams = {"batch_api_http_first_event_seconds_bucket"}

    assert named_in_alerts() - there == set()
    assert named_in_dashboard() - there <= of_gpus | of_deadlines | of_streams


def _refusals(server: Server) -> Iterator[dict[str, Any]]:
    """Until it is ready."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        try:
            server.fetch("/ready")
            return
        except urllib.error.HTTPError as refusal:
            with refusal:
                yield json.loads(refusal.read())
        time.sleep(_POLL_SECONDS)
    raise AssertionError("it does not get ready")


def _chat(client: OpenAI) -> Any:
    question = "What is 2+2?"
    return client.chat.completions.create(
        model="demo", messages=[{"role": "user", "content": question}], temperature=0
    )


def _run(client: OpenAI) -> Batch:
    lines = [_line(number) for number in range(_LINES)] + [_line(_LINES, temperature=9)]
    file = client.files.create(file=("in.jsonl", b"".join(lines)), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    deadline = time.monotonic() + _SECONDS
    while batch.status != "completed":
        assert time.monotonic() < deadline, batch
        time.sleep(_POLL_SECONDS)
        batch = client.batches.retrieve(batch.id)
    return batch


def _line(number: int, **options: Any) -> bytes:
    body = {
        "model": "demo",
        "temperature": 0,
        "messages": [{"role": "user", "content": f"What is {number}+{number}?"}],
    }
    line = {"custom_id": str(number), "method": "POST", "url": _CHAT, "body": body | options}
    return json.dumps(line).encode() + b"\n"
