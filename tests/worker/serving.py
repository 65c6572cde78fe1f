"""A worker's app on a real socket in the test's own event loop, around the fake engine."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import aiohttp
from openai import AsyncOpenAI

from batch_api.commands.listening import bind, listen
from batch_api.settings import Task
from batch_api.worker.app import create_app
from batch_api.worker.engine_thread import EngineThread
from tests.worker.fake_engine import FakeEngine

if TYPE_CHECKING:
    from collections.abc import Callable

    from batch_api.engine.engine import Engine

MODEL = "org/fake"
CHAT = "/v1/chat/completions"
_POLL_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class Worker:
    url: str
    engine: FakeEngine
    thread: EngineThread["Engine"]
    session: aiohttp.ClientSession
    client: AsyncOpenAI

    async def say(self, content: str, **options: Any) -> aiohttp.ClientResponse:
        """A chat's answer, its head only."""
        return await self.session.post(CHAT, json=chat(content, **options))

    async def post(self, body: bytes | BytesIO) -> tuple[int, Any]:
        async with self.session.post(CHAT, data=body) as answer:
            return answer.status, await answer.json()

    async def wait_for(self, *, running: int, waiting: int = 0) -> None:
        await until(lambda: (self.thread.running, self.thread.waiting) == (running, waiting))


def chat(content: str, **options: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": content}], **options}


@asynccontextmanager
async def serving(
    engine: FakeEngine, *, max_waiting: int = 512, load: "Callable[[], Engine] | None" = None
) -> AsyncIterator[Worker]:
    """With `load`, it is for the test to wait until the model is loaded."""
    thread = EngineThread(load or engine.as_engine, max_waiting=max_waiting)
    async with listening(thread, ready=load is None) as (url, session, client):
        yield Worker(url, engine, thread, session, client)


@asynccontextmanager
async def listening(
    thread: EngineThread[Any], *, task: Task = "generate", ready: bool = True
) -> AsyncIterator[tuple[str, aiohttp.ClientSession, AsyncOpenAI]]:
    """The app around a thread that is not started yet: its URL, and two clients."""
    over = asyncio.Event()
    with bind("127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.start()
        async with asyncio.TaskGroup() as group:
            app = create_app(thread, model=MODEL, task=task)
            group.create_task(listen(app, listener, over, grace_seconds=1))
            async with (
                aiohttp.ClientSession(url) as session,
                AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
            ):
                try:
                    await _until_up(session, ready=ready)
                    yield url, session, client
                finally:
                    over.set()
    assert await thread.stop(5)


async def until(is_so: "Callable[[], bool]") -> None:
    async with asyncio.timeout(60):
        while not is_so():  # noqa: ASYNC110 - another thread makes it so
            await asyncio.sleep(_POLL_SECONDS)


async def _until_up(session: aiohttp.ClientSession, *, ready: bool) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                async with session.get("/health") as answer:
                    if (await answer.json())["ready"] or not ready:
                        return
            except aiohttp.ClientConnectorError:
                pass
            await asyncio.sleep(_POLL_SECONDS)
