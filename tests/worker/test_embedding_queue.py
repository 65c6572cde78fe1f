"""Requests that wait for the embedder: together, in order, and not too many."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from batch_api.engine.embedder import Embedder
from tests.minilm import MINILM
from tests.worker.embedding import EMBEDDINGS, EmbeddingWorker, embedding
from tests.worker.serving import MODEL, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder.load(str(MINILM), device="cpu", dtype="float32")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker(embedder: Embedder) -> AsyncIterator[EmbeddingWorker]:
    async with embedding(embedder, max_waiting=40) as it:
        yield it


async def _occupied(worker: EmbeddingWorker) -> "asyncio.Task[int]":
    """From here on a pass is at the gate, and what is asked waits."""
    worker.embedder.passes.clear()
    worker.embedder.finished.clear()
    worker.embedder.gate.clear()
    first = worker.asking("the first")
    await until(lambda: worker.thread.running == 1)
    return first


async def _wait_for(worker: EmbeddingWorker, waiting: int) -> None:
    await until(lambda: worker.thread.waiting == waiting)


async def test_what_waits_from_several_requests_shares_a_pass(worker: EmbeddingWorker) -> None:
    first = await _occupied(worker)
    others = [worker.asking(f"number {n}") for n in range(32)]
    await _wait_for(worker, 32)

    worker.embedder.gate.set()

    assert await asyncio.gather(first, *others) == [200] * 33
    assert worker.embedder.passes == [1, 32]


async def test_interactive_requests_go_before_those_of_batches(worker: EmbeddingWorker) -> None:
    first = await _occupied(worker)
    patient = [worker.asking(f"batch {n}", priority="batch") for n in range(4)]
    await _wait_for(worker, 4)
    urgent = worker.asking("urgent")
    await _wait_for(worker, 5)

    worker.embedder.gate.set()
    await asyncio.gather(first, urgent, *patient)

    assert worker.embedder.passes == [1, 1, 4]
    assert worker.embedder.finished[1].rows[0].token_ids == worker.embedder.encode(["urgent"])[0]


async def test_beyond_the_queue_a_request_is_503_with_retry_after(
    worker: EmbeddingWorker,
) -> None:
    first = await _occupied(worker)
    others = [worker.asking("waits") for _ in range(40)]
    await _wait_for(worker, 40)

    async with worker.session.post(EMBEDDINGS, json={"model": MODEL, "input": "a"}) as answer:
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert (await answer.json())["error"]["code"] == "server_is_overloaded"

    worker.embedder.gate.set()
    assert set(await asyncio.gather(first, *others)) == {200}


async def test_a_client_that_leaves_frees_its_place_and_is_not_run(
    worker: EmbeddingWorker,
) -> None:
    first = await _occupied(worker)
    leaving = [worker.asking("never") for _ in range(40)]
    await _wait_for(worker, 40)

    for each in leaving:
        each.cancel()
    await _wait_for(worker, 0)
    stays = worker.asking("stays")
    await _wait_for(worker, 1)
    worker.embedder.gate.set()

    assert set(await asyncio.gather(first, stays)) == {200}
    assert len(worker.embedder.finished) == 2
