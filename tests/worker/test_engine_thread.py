"""The queue, places, loading, and the order of the sequences."""

import asyncio
from collections.abc import AsyncIterator
from threading import Event
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from httpx2 import Response
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from batch_api import __version__
from batch_api.schemas.priority import PRIORITY_HEADER
from batch_api.worker.engine_thread import Status
from tests.worker.fake_engine import FakeEngine, text_of
from tests.worker.serving import CHAT, MODEL, Worker, chat, serving, until

if TYPE_CHECKING:
    from batch_api.engine.engine import Engine


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def narrow() -> AsyncIterator[Worker]:
    """Two sequences run, one waits."""
    async with serving(FakeEngine(), max_waiting=1) as it:
        yield it


async def _fill(worker: Worker) -> list["asyncio.Task[object]"]:
    posts = [asyncio.create_task(worker.say("count")) for _ in range(3)]
    await worker.wait_for(running=2, waiting=1)
    return list(posts)


async def _leave(worker: Worker, posts: list["asyncio.Task[object]"]) -> None:
    for post in posts:
        post.cancel()
    await worker.wait_for(running=0)


async def test_beyond_the_queue_a_request_is_503_with_retry_after(narrow: Worker) -> None:
    posts = await _fill(narrow)

    async with await narrow.say("say hi") as answer:
        assert answer.status == 503
        assert answer.headers["retry-after"] == "1"
        assert (await answer.json())["error"]["code"] == "server_is_overloaded"
    await _leave(narrow, posts)


async def test_however_many_requests_of_batches_wait_there_is_a_place_for_a_chat() -> None:
    async with serving(FakeEngine(), max_waiting=16) as worker:
        batch = {PRIORITY_HEADER: "batch"}

        async def say(content: str, headers: dict[str, str]) -> int:
            async with worker.session.post(CHAT, json=chat(content), headers=headers) as answer:
                return answer.status

        posts: list[asyncio.Task[object]] = [
            asyncio.create_task(say("count", batch)) for _ in range(16)
        ]
        await worker.wait_for(running=2, waiting=14)

        assert await say("say hi", batch) == 503
        chatting = asyncio.create_task(say("say hi", {}))
        await worker.wait_for(running=2, waiting=15)
        await _leave(worker, posts)
        assert await chatting == 200


async def test_the_sdk_succeeds_when_the_queue_has_room_again(narrow: Worker) -> None:
    posts = await _fill(narrow)
    refused = asyncio.Event()

    async def on_response(response: Response) -> None:
        assert response.status_code in (200, 503)
        refused.set()

    async with (
        DefaultAsyncHttpxClient(event_hooks={"response": [on_response]}) as http,
        AsyncOpenAI(base_url=f"{narrow.url}/v1", api_key="none", http_client=http) as client,
    ):
        asking = asyncio.ensure_future(
            client.chat.completions.with_raw_response.create(
                model=MODEL, messages=[{"role": "user", "content": "say hi"}]
            )
        )
        await refused.wait()
        await _leave(narrow, posts)
        answer = await asking

    assert answer.retries_taken == 1
    assert answer.parse().choices[0].message.content == "hi"


async def test_a_client_that_leaves_frees_its_place(narrow: Worker) -> None:
    posts = await _fill(narrow)

    await _leave(narrow, posts)

    async with await narrow.say("say hi") as answer:
        assert answer.status == 200


async def test_a_client_that_leaves_the_queue_was_never_run(narrow: Worker) -> None:
    running = [asyncio.create_task(narrow.say("count")) for _ in range(2)]
    await narrow.wait_for(running=2)
    waiting = asyncio.create_task(narrow.say("say never"))
    await narrow.wait_for(running=2, waiting=1)

    waiting.cancel()
    await narrow.wait_for(running=2, waiting=0)
    for task in running:
        task.cancel()
    await narrow.wait_for(running=0)

    assert not any("never" in text_of(sequence) for sequence in narrow.engine.begun)


async def test_an_interactive_request_overtakes_waiting_batch_requests(
    worker: Worker, engine: FakeEngine
) -> None:
    running = [asyncio.create_task(worker.say("count")) for _ in range(2)]
    await worker.wait_for(running=2)
    headers = {"x-batch-api-priority": "batch"}
    patient = asyncio.create_task(
        worker.session.post(CHAT, json=chat("say batch"), headers=headers).__aenter__()
    )
    await worker.wait_for(running=2, waiting=1)
    urgent = asyncio.create_task(worker.say("say now"))
    await worker.wait_for(running=2, waiting=2)

    for task in running:
        task.cancel()
    await asyncio.gather(patient, urgent)

    assert [text_of(each).strip() for each in engine.begun[2:]] == [
        "user: say now",
        "user: say batch",
    ]


async def test_while_the_model_loads_requests_are_503_and_health_says_so() -> None:
    loaded = Event()

    def load() -> "Engine":
        loaded.wait()
        return FakeEngine().as_engine()

    async with serving(FakeEngine(), load=load) as worker:
        async with worker.session.get("/health") as answer:
            assert answer.status == 200
            assert (await answer.json())["status"] == "loading"
        async with await worker.say("say hi") as answer:
            assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert [model.id async for model in worker.client.models.list()] == [MODEL]
        assert await _readiness(worker) == (503, "loading", False)

        loaded.set()
        await until(lambda: worker.thread.status is Status.READY)
        assert await _readiness(worker) == (200, "ready", True)
        async with await worker.say("say hi") as answer:
            assert answer.status == 200


async def _readiness(worker: Worker) -> tuple[int, str, bool]:
    """The status of `/ready` and the word it says, and what the model says of itself."""
    async with worker.session.get("/v1/models") as answer:
        (model,) = (await answer.json())["data"]
    async with worker.session.get("/ready") as answer:
        return answer.status, (await answer.json())["status"], model["ready"]


async def test_the_version_of_a_worker_is_told(worker: Worker) -> None:
    async with worker.session.get("/version") as answer:
        told = await answer.json()

    assert told.keys() == {"version", "python", "api", "started_at"}
    assert told["version"] == __version__


async def _health(worker: Worker) -> dict[str, object]:
    async with worker.session.get("/health") as answer:
        health: dict[str, object] = await answer.json()
        return health


async def test_health_tells_the_device_the_memory_and_what_runs_and_waits(worker: Worker) -> None:
    posts = await _fill(worker)

    health = await _health(worker)

    await _leave(worker, posts)
    assert health == {
        "status": "ready",
        "ready": True,
        "model": MODEL,
        "task": "generate",
        "running": 2,
        "waiting": 1,
        "max_waiting": 512,
        "max_sequences": 2,
        "max_length": 5000,
        "device": "cpu",
        "dtype": "float32",
        "memory_bytes": 123,
    }


async def test_while_draining_new_requests_are_503_and_running_ones_end() -> None:
    async with serving(FakeEngine()) as worker:
        running = asyncio.create_task(worker.say("count", max_tokens=200))
        await worker.wait_for(running=1)

        draining = asyncio.create_task(worker.thread.drain(30))
        await asyncio.sleep(0)
        async with await worker.say("say hi") as refused:
            assert refused.status == 503

        async with await running as answer:
            assert answer.status == 200
        await draining


async def test_what_runs_beyond_the_grace_period_is_told_so() -> None:
    async with serving(FakeEngine()) as worker:
        running = asyncio.create_task(worker.say("count", max_tokens=4000))
        await worker.wait_for(running=1)

        await worker.thread.drain(0.05)

        async with await running as answer:
            assert answer.status == 503
