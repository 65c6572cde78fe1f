"""`kill -9` at random moments of a batch: no line lost, none twice, none run again."""

import json
import os
import random
from collections import Counter
from pathlib import Path

import pytest
from openai import OpenAI
from openai.types import Batch

from batch_api.lifecycle import BatchStatus
from tests.faults.remains import Remains, read_remains
from tests.server import Server, StandinProcess
from tests.standin import MODEL, answer_to

_MAX_IN_FLIGHT = 16
_MAX_HELD = 2 * _MAX_IN_FLIGHT
"""In flight, waiting for a lane, or answered and not recorded yet."""
_KILLED_WHILE_STARTING = 0.2


@pytest.fixture
def seed() -> int:
    """Each run takes other moments; `CRASH_SEED` chooses them."""
    return int(os.environ.get("CRASH_SEED") or random.randrange(2**32))


def test_a_batch_survives_a_few_kills(tmp_path: Path, seed: int) -> None:
    _run(tmp_path, lines=300, kills=3, delay_ms=50, longest_life_seconds=0.6, seed=seed)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_batch_of_2000_lines_survives_20_kills(tmp_path: Path, seed: int) -> None:
    _run(tmp_path, lines=2000, kills=20, delay_ms=150, longest_life_seconds=1.5, seed=seed)


def _run(
    folder: Path, *, lines: int, kills: int, delay_ms: float, longest_life_seconds: float, seed: int
) -> None:
    print(f"CRASH_SEED={seed}")  # pytest shows it if the test fails
    chance = random.Random(seed)
    custom_ids = [f"line-{number}" for number in range(lines)]
    with (
        StandinProcess(folder, delay_ms=delay_ms, jitter_ms=delay_ms) as standin,
        Server(folder, standin.url, settings={"max_in_flight": _MAX_IN_FLIGHT}) as server,
        server.client() as client,
    ):
        ordeal = Ordeal(server, standin, _create(client, custom_ids).id)
        for _ in range(kills):
            ordeal.kill()
            assert not ordeal.remains.status.is_final, "the batch ended before the last kill"
            if chance.random() < _KILLED_WHILE_STARTING:
                server.spawn()
            else:
                server.start()
            server.live(chance.uniform(0, longest_life_seconds))
        server.wait_until_ready()
        batch = _wait_until_completed(server, client, ordeal.batch_id)
        _check_output(client, batch, custom_ids)
        ordeal.end(custom_ids)


class Ordeal:
    """One batch whose server is killed again and again; checks what each kill leaves."""

    def __init__(self, server: Server, standin: StandinProcess, batch_id: str) -> None:
        self.batch_id = batch_id
        self._server = server
        self._standin = standin
        self._served: Counter[str] = Counter()
        self._in_flight_at_kills = 0
        self.remains = Remains(BatchStatus.VALIDATING, None, 0, 0, {}, frozenset(), False)

    def kill(self) -> None:
        self._server.kill()
        self._standin.wait_until_left()
        self._look()

    def end(self, custom_ids: list[str]) -> None:
        """To be called once the batch has completed."""
        self._server.terminate()
        self._standin.wait_until_left()
        self._look()
        assert set(self._served) == set(custom_ids)
        assert self._served.total() <= len(custom_ids) + self._in_flight_at_kills

    def _look(self) -> None:
        """At what the server left, and at what it sent since it was started."""
        before, self.remains = self.remains, read_remains(self._server.data_dir, self.batch_id)
        self.remains.check()
        assert _reaches(before.status, self.remains.status)
        assert before.ended <= self.remains.ended
        served = self._standin.served()
        sent, self._served = served - self._served, served
        self._check_sent(sent, before)

    def _check_sent(self, sent: Counter[str], before: Remains) -> None:
        assert all(times == 1 for times in sent.values()), "a line was sent twice in one life"
        assert not before.ended & set(sent), "a line that had ended was sent again"
        assert self.remains.ended - before.ended <= set(sent), "a line ended without being sent"
        in_flight = len(set(sent) - self.remains.ended)
        assert in_flight <= _MAX_HELD
        self._in_flight_at_kills += in_flight


def _reaches(old: BatchStatus, new: BatchStatus) -> bool:
    return old == new or any(_reaches(step, new) for step in BatchStatus if old.can_become(step))


def _create(client: OpenAI, custom_ids: list[str]) -> Batch:
    content = "".join(_input_line(custom_id) for custom_id in custom_ids)
    file = client.files.create(file=("input.jsonl", content.encode()), purpose="batch")
    return client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )


def _input_line(custom_id: str) -> str:
    body = {"model": MODEL, "messages": [{"role": "user", "content": custom_id}]}
    url = "/v1/chat/completions"
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body}) + "\n"


def _wait_until_completed(server: Server, client: OpenAI, batch_id: str) -> Batch:
    while not BatchStatus((batch := client.batches.retrieve(batch_id)).status).is_final:
        server.live(0.1)
    assert batch.status == "completed"
    return batch


def _check_output(client: OpenAI, batch: Batch, custom_ids: list[str]) -> None:
    """Each line exactly once, in order, with its own answer."""
    assert batch.request_counts is not None
    assert batch.request_counts.completed == batch.request_counts.total == len(custom_ids)
    assert batch.error_file_id is None
    assert batch.output_file_id is not None
    output = [json.loads(line) for line in client.files.content(batch.output_file_id).iter_lines()]
    assert [line["custom_id"] for line in output] == custom_ids
    assert len({line["id"] for line in output}) == len(custom_ids)
    for line in output:
        (choice,) = line["response"]["body"]["choices"]
        assert choice["message"]["content"] == answer_to(line["custom_id"])
