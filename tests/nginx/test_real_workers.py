"""nginx in front of real workers: load is spread, and one that dies or ends costs nothing."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from openai import AsyncOpenAI, AsyncStream, Timeout
from openai.types import Batch
from openai.types.chat import ChatCompletionChunk

from tests.nginx.conftest import CHAT
from tests.nginx.process import Nginx
from tests.server import Server
from tests.worker.process import WorkerProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

_WORKERS = 3
_LOOK_SECONDS = 0.05
_FINAL = ("completed", "failed", "expired", "cancelled")


@dataclass(frozen=True, slots=True)
class Deployment:
    nginx: Nginx
    server: Server
    workers: list[WorkerProcess]

    def answered_by(self, *, skip: int, at_least: int = 0) -> list[int]:
        """How many requests each worker answered, without the first ones of the log."""
        logged = self.nginx.requests(at_least=skip + at_least)[skip:]
        answers = (line for line in logged if line["path"] == CHAT)
        by_address = Counter(str(line["upstream"]).split(", ")[-1] for line in answers)
        return [by_address[worker.url.removeprefix("http://")] for worker in self.workers]

    def running(self, worker: WorkerProcess) -> int:
        health: dict[str, int] = msgspec.json.decode(worker.fetch("/health"))
        return health["running"]

    async def only_busy(self) -> WorkerProcess:
        """Once those are over that nobody waits for any more."""
        while len(busy := list(filter(self.running, self.workers))) != 1:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)
        return busy[0]


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with ExitStack() as stack:
        workers = []
        for number in range(_WORKERS):
            folder = tmp_path_factory.mktemp(f"worker-{number}")
            worker = WorkerProcess(folder, "--max-length", "1024", "--max-sequences", "8")
            workers.append(stack.push(worker))
            worker.spawn()
        for worker in workers:
            worker.wait_until_ready()
        addresses = {
            f"worker-{number}:8000": worker.url.removeprefix("http://")
            for number, worker in enumerate(workers)
        }
        nginx = stack.enter_context(Nginx("workers.conf", addresses))
        folder = tmp_path_factory.mktemp("server")
        server = stack.enter_context(Server(folder, nginx.url, settings={"max_in_flight": 24}))
        yield Deployment(nginx, server, workers)


@asynccontextmanager
async def _client(url: str) -> AsyncIterator[AsyncOpenAI]:
    """That tries nothing twice, and is as patient with a busy machine as it takes."""
    patience = Timeout(600, connect=60)
    async with AsyncOpenAI(
        base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=patience
    ) as client:
        yield client


async def _say(client: AsyncOpenAI, text: str = "What is 2+2?", **options: Any) -> str:
    answer = await client.chat.completions.create(
        model="demo", messages=[{"role": "user", "content": text}], **options
    )
    return answer.choices[0].message.content or ""


async def _stream(client: AsyncOpenAI, *, tokens: int) -> AsyncStream[ChatCompletionChunk]:
    return await client.chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": "Count."}],
        stream=True,
        max_tokens=tokens,
        extra_body={"ignore_eos": True},
    )


async def _begin(client: AsyncOpenAI, count: int) -> Batch:
    bodies = (
        {
            "model": "demo",
            "max_tokens": 20,
            "ignore_eos": True,
            "messages": [{"role": "user", "content": f"What is {number}+{number}?"}],
        }
        for number in range(count)
    )
    lines = [
        {"custom_id": f"sum-{number}", "method": "POST", "url": CHAT, "body": body}
        for number, body in enumerate(bodies)
    ]
    content = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    file = await client.files.create(file=("in.jsonl", content), purpose="batch")
    return await client.batches.create(
        input_file_id=file.id, endpoint=CHAT, completion_window="24h"
    )


async def _finish(client: AsyncOpenAI, batch: Batch, *, completed: int | None = None) -> Batch:
    """At its end, or once so many lines are answered."""
    while batch.status not in _FINAL:
        if (
            completed is not None
            and batch.request_counts
            and batch.request_counts.completed >= completed
        ):
            break
        await asyncio.sleep(_LOOK_SECONDS)
        batch = await client.batches.retrieve(batch.id)
    return batch


def _counts(batch: Batch) -> tuple[int, int]:
    assert batch.request_counts is not None
    return batch.request_counts.completed, batch.request_counts.failed


async def _ids(client: AsyncOpenAI, batch: Batch) -> list[str]:
    assert batch.output_file_id is not None
    content = await client.files.content(batch.output_file_id)
    return [json.loads(line)["custom_id"] for line in content.text.splitlines()]


async def test_load_is_spread(deployment: Deployment) -> None:
    """All at once, so that it does not matter whose process the CPU likes best."""
    before = len(deployment.nginx.requests())

    async with _client(deployment.nginx.url) as client:
        answers = await asyncio.gather(*(_say(client, max_tokens=8) for _ in range(150)))

    answered = deployment.answered_by(skip=before, at_least=150)
    assert all(answers)
    assert sum(answered) == 150
    assert min(answered) >= 0.8 * 150 / _WORKERS, answered


@pytest.mark.parametrize("through", ["nginx", "the server and nginx"])
async def test_tokens_come_while_others_are_yet_to_be_made(
    deployment: Deployment, through: str
) -> None:
    url = deployment.nginx.url if through == "nginx" else deployment.server.url
    async with _client(url) as client, await _stream(client, tokens=900) as stream:
        events = aiter(stream)
        for _ in range(3):
            await anext(events)

        async with asyncio.timeout(60):
            await deployment.only_busy()  # on the tokens that are yet to come


async def test_a_killed_worker_costs_no_line_and_no_chat(deployment: Deployment) -> None:
    victim = deployment.workers[0]
    over = asyncio.Event()

    async def chat(client: AsyncOpenAI) -> int:
        answers = 0
        while not over.is_set():
            await _say(client)
            answers += 1
        return answers

    async with _client(deployment.nginx.url) as direct, _client(deployment.server.url) as client:
        async with asyncio.TaskGroup() as group:
            chats = [group.create_task(chat(each)) for each in (direct, client, direct, client)]
            batch = await _finish(client, await _begin(client, 150), completed=40)
            assert batch.status == "in_progress"
            while not deployment.running(victim):  # noqa: ASYNC110 it may be between two requests
                await asyncio.sleep(0.01)
            victim.kill()
            batch = await _finish(client, batch)
            over.set()

        assert _counts(batch) == (150, 0)
        assert await _ids(client, batch) == [f"sum-{number}" for number in range(150)]
        assert all(each.result() for each in chats)


async def test_a_worker_that_comes_back_gets_requests_again(deployment: Deployment) -> None:
    """After the test before."""
    victim = deployment.workers[0]
    if victim.has_ended:
        await asyncio.to_thread(victim.start)
    before = len(deployment.nginx.requests())

    async with _client(deployment.nginx.url) as client, asyncio.timeout(60):
        while not deployment.answered_by(skip=before)[0]:
            await asyncio.gather(*(_say(client) for _ in range(6)))


async def test_a_worker_that_ends_ends_its_streams_first(deployment: Deployment) -> None:
    async with _client(deployment.nginx.url) as client:
        stream = await _stream(client, tokens=400)
        await anext(aiter(stream))
        leaving = await deployment.only_busy()
        ending = asyncio.create_task(asyncio.to_thread(leaving.terminate))
        reasons = []
        async for event in stream:
            reasons += [choice.finish_reason for choice in event.choices if choice.finish_reason]
        others = [await _say(client) for _ in range(4)]

        assert reasons == ["length"]
        assert all(others)
        assert await ending == 0
