"""Who is blamed when an upstream fails: the request that is the cause, and no other."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest
from aiohttp import web

from batch_api.upstreams import Upstreams
from tests.scheduler.site import Site, ids, question, questions
from tests.scheduler.test_several_upstreams import beside
from tests.standin import Fault, Standin

pytestmark = pytest.mark.slow

POISON = "poison"


class FragileWorker:
    """Dies with everything it is at as soon as it is asked a poisoned question."""

    def __init__(self, *, seconds: float) -> None:
        self.deaths = 0
        self._seconds = seconds
        self._open: list[web.Request] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self._open.append(request)
        try:
            text = (await request.json())["messages"][-1]["content"]
            await asyncio.sleep(self._seconds)
            if POISON in text:
                self._die()
            return web.json_response({"model": "fragile", "choices": []})
        finally:
            self._open.remove(request)

    def _die(self) -> None:
        self.deaths += 1
        for request in self._open:
            if request.transport is not None:
                request.transport.abort()


@asynccontextmanager
async def served(answer: Callable[..., object]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)  # type: ignore[arg-type]
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def at(
    site: Site, url: str, *, in_flight: int, timeout_seconds: float = 10
) -> AsyncIterator[Site]:
    upstreams = Upstreams([url], timeout_seconds=timeout_seconds, most_in_flight=in_flight)
    settings = site.settings.model_copy(update={"max_in_flight": in_flight})
    yield replace(site, upstreams=upstreams, settings=settings)
    await upstreams.close()


@pytest.mark.parametrize("place", [1, 17, 40])
async def test_a_line_that_kills_its_worker_fails_alone(site: Site, place: int) -> None:
    texts = [POISON if line == place else "hi" for line in range(1, 41)]
    lines = [question(f"row-{line}", text) for line, text in enumerate(texts, start=1)]
    number = await site.submit(b"".join(lines))
    worker = FragileWorker(seconds=0.02)

    async with served(worker.answer) as url, at(site, url, in_flight=32) as here:
        batch = await here.run(number)

    assert (batch.completed, batch.failed) == (39, 1)
    (bad,) = await site.errors(number)
    assert (bad["custom_id"], bad["error"]["code"]) == (f"row-{place}", "worker_crashed")
    # In company three times, 32, 8 and 2 together, then alone as often as a line is tried.
    assert worker.deaths <= 3 + site.settings.max_attempts


async def test_two_lines_that_kill_their_worker_fail_and_no_other(site: Site) -> None:
    texts = [POISON if line in (3, 30) else "hi" for line in range(1, 41)]
    lines = [question(f"row-{line}", text) for line, text in enumerate(texts, start=1)]
    number = await site.submit(b"".join(lines))
    worker = FragileWorker(seconds=0.02)

    async with served(worker.answer) as url, at(site, url, in_flight=8) as here:
        batch = await here.run(number)

    assert batch.completed == 38
    assert ids(await site.errors(number)) == ["row-3", "row-30"]


async def test_a_queue_longer_than_the_time_limit_fails_nothing(site: Site) -> None:
    """Two at a time, a tenth of a second each: of 64 at once, half would wait for over a second."""
    slots = asyncio.Semaphore(2)

    async def answer(request: web.Request) -> web.StreamResponse:
        async with slots:
            await asyncio.sleep(0.1)
        return web.json_response({"model": "slow", "choices": []})

    number = await site.submit(questions(80))
    async with (
        served(answer) as url,
        at(site, url, in_flight=64, timeout_seconds=1.5) as here,
    ):
        batch = await here.run(number)

    assert (batch.completed, batch.failed) == (80, 0)


async def test_an_upstream_that_fails_at_once_does_not_swallow_the_lines_of_the_others(
    site: Site,
) -> None:
    site.standin.fault = Fault(delay_ms=5)
    broken = Standin(fault=Fault(status=500))
    number = await site.submit(questions(500))

    async with beside(site, broken) as both:
        batch = await both.run(number)

    assert (batch.completed, batch.failed) == (500, 0)
    assert broken.stats.received < 50


@pytest.mark.parametrize("answers", [Fault(status=503, retry_after="1"), None], ids=["503", "away"])
async def test_a_404_counts_only_when_every_upstream_says_it(
    site: Site, free_port: int, answers: Fault | None
) -> None:
    """The upstream that has the model is overloaded, or not there yet."""
    site.standin.fault = Fault(status=404)
    number = await site.submit(questions(60))
    assert await site.intake.validate_once()
    urls = [site.url, f"http://127.0.0.1:{free_port}"]
    upstreams = Upstreams(urls, timeout_seconds=10)
    has_it = Standin(fault=answers or Fault())

    async def come_up() -> None:
        while site.standin.stats.received < 20:  # noqa: ASYNC110 by the other side of a socket
            await asyncio.sleep(0.01)
        await standing.enter_async_context(has_it.listening(free_port))

    async def recover() -> None:
        while has_it.stats.received < 5:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        has_it.fault = Fault()

    async with AsyncExitStack() as standing:
        if answers:
            await standing.enter_async_context(has_it.listening(free_port))
        async with asyncio.TaskGroup() as group:
            group.create_task(recover() if answers else come_up())
            batch = await replace(site, upstreams=upstreams).run(number)
        await upstreams.close()

    assert (batch.completed, batch.failed) == (60, 0)
