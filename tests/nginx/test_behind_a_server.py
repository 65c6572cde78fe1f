"""The batch server with nginx as its upstream: what nginx answers never costs an innocent line."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from openai import OpenAI
from openai.types import Batch

from tests.nginx.conftest import CHAT
from tests.nginx.process import Nginx
from tests.server import Server, StandinProcess
from tests.standin import CLOSED, MODEL, Fault

pytestmark = pytest.mark.slow

_POLL_SECONDS = 0.05
_FINAL = ("completed", "failed", "expired", "cancelled")


@dataclass(frozen=True, slots=True)
class Deployment:
    nginx: Nginx
    client: OpenAI
    workers: list[StandinProcess]

    def begin(self, texts: list[str]) -> Batch:
        lines = [
            {
                "custom_id": f"row-{number}",
                "method": "POST",
                "url": CHAT,
                "body": {"model": MODEL, "messages": [{"role": "user", "content": text}]},
            }
            for number, text in enumerate(texts, start=1)
        ]
        content = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        file = self.client.files.create(file=("in.jsonl", content), purpose="batch")
        return self.client.batches.create(
            input_file_id=file.id, endpoint=CHAT, completion_window="24h"
        )

    def refusals(self) -> int:
        return sum(answered["status"] == 503 for answered in self.nginx.requests())

    def finish(self, batch: Batch) -> Batch:
        while batch.status not in _FINAL:
            time.sleep(_POLL_SECONDS)
            batch = self.client.batches.retrieve(batch.id)
        return batch

    def lines(self, file_id: str | None) -> list[dict[str, object]]:
        assert file_id is not None
        return [json.loads(line) for line in self.client.files.content(file_id).iter_lines()]


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    with ExitStack() as stack:
        workers = []
        for number in range(2):
            (tmp_path / f"worker-{number}").mkdir()
            standin = StandinProcess(tmp_path / f"worker-{number}", delay_ms=5)
            workers.append(stack.enter_context(standin))
        addresses = {
            f"worker-{number}:8000": worker.url.removeprefix("http://")
            for number, worker in enumerate(workers)
        }
        nginx = stack.enter_context(Nginx("workers.conf", addresses))
        server = stack.enter_context(Server(tmp_path, nginx.url, settings={"max_in_flight": 16}))
        yield Deployment(nginx, stack.enter_context(server.client()), workers)


def _counts(batch: Batch) -> tuple[int, int]:
    assert batch.request_counts is not None
    return batch.request_counts.completed, batch.request_counts.failed


def test_a_batch_waits_for_workers_that_are_all_away(deployment: Deployment) -> None:
    """More often refused than a line has attempts."""
    for worker in deployment.workers:
        worker.terminate()
    batch = deployment.begin([f"hi {number}" for number in range(40)])
    while deployment.refusals() < 5:
        time.sleep(_POLL_SECONDS)
    assert _counts(deployment.client.batches.retrieve(batch.id)) == (0, 0)

    deployment.workers[1].start()

    assert _counts(deployment.finish(batch)) == (40, 0)


def test_a_line_that_breaks_every_worker_fails_alone(deployment: Deployment) -> None:
    texts = [f"hi {number}" for number in range(40)]
    texts[16] = f"{CLOSED}poison"

    batch = deployment.finish(deployment.begin(texts))

    assert _counts(batch) == (39, 1)
    (bad,) = deployment.lines(batch.error_file_id)
    assert bad["custom_id"] == "row-17"
    assert bad["response"]["status_code"] == 502  # type: ignore[index]
    # Two of them each time: in company a few times, then alone as often as a line is tried.
    deaths = sum(worker.served()["poison"] for worker in deployment.workers)
    assert deaths <= 2 * (3 + 3)


def test_a_worker_that_dies_again_and_again_costs_no_line(deployment: Deployment) -> None:
    slow = Fault(delay_ms=50)
    batch = deployment.begin([f"{slow}hi {number}" for number in range(200)])
    for worker in deployment.workers * 2:
        worker.wait_until_received(5)
        worker.kill()
        worker.start()

    assert _counts(deployment.finish(batch)) == (200, 0)
