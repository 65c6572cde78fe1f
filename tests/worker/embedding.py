"""A worker that embeds, on a real socket in the test's own event loop."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from threading import Event
from typing import Any

import aiohttp
from openai import AsyncOpenAI

from batch_api.engine.embedder import Embedded, Embedder
from batch_api.engine.texts import Texts
from batch_api.worker.engine_thread import EngineThread
from tests.worker.serving import MODEL, listening

EMBEDDINGS = "/v1/embeddings"


class GatedEmbedder:
    """A real one whose passes wait at a gate, and that remembers what was in them."""

    def __init__(self, embedder: Embedder) -> None:
        self.gate = Event()
        self.gate.set()
        self.passes: list[int] = []
        self.finished: list[Texts] = []
        self.running = 0
        self.max_sequences = 1
        self.max_length = embedder.max_length
        self.device = embedder.device
        self.dtype = embedder.dtype
        self.memory_bytes = embedder.memory_bytes
        self.dimensions = embedder.dimensions
        self.vocabulary = embedder.vocabulary
        self.encode = embedder.encode
        self.add = embedder.add
        self.cancel = embedder.cancel
        self._embedder = embedder

    @property
    def has_work(self) -> bool:
        return self._embedder.has_work

    def step(self) -> Collection[Embedded]:
        self.running = 1
        self.gate.wait()
        self.running = 0
        done = self._embedder.step()
        self.passes.append(len(done))
        self.finished += [each.sequence for each in done]
        return done


@dataclass(frozen=True, slots=True)
class EmbeddingWorker:
    url: str
    embedder: GatedEmbedder
    thread: EngineThread[GatedEmbedder]
    session: aiohttp.ClientSession
    client: AsyncOpenAI

    async def post(self, **body: Any) -> tuple[int, Any]:
        async with self.session.post(EMBEDDINGS, json={"model": MODEL, **body}) as answer:
            return answer.status, await answer.json()

    def asking(self, *input: str, priority: str = "interactive") -> "asyncio.Task[int]":
        """Its status."""
        return asyncio.create_task(self._status(input, priority))

    async def _status(self, input: tuple[str, ...], priority: str) -> int:
        body, headers = {"model": MODEL, "input": input}, {"x-batch-api-priority": priority}
        async with self.session.post(EMBEDDINGS, json=body, headers=headers) as answer:
            await answer.read()
            return answer.status


@asynccontextmanager
async def embedding(
    embedder: Embedder, *, max_waiting: int = 512
) -> AsyncIterator[EmbeddingWorker]:
    gated = GatedEmbedder(embedder)
    thread = EngineThread(lambda: gated, max_waiting=max_waiting)
    async with listening(thread, task="embed") as (url, session, client):
        yield EmbeddingWorker(url, gated, thread, session, client)
