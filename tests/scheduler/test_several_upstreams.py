import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from batch_api.lifecycle import BatchStatus
from batch_api.upstreams import Upstreams
from tests.listening import answering
from tests.scheduler.site import Site, ids, question, questions
from tests.standin import Fault, Standin


@asynccontextmanager
async def beside(site: Site, other: Standin) -> AsyncIterator[Site]:
    """The site with a second upstream; the first one named is asked first."""
    async with other.listening() as url:
        upstreams = Upstreams([url, site.url], timeout_seconds=10)
        yield replace(site, upstreams=upstreams)
        await upstreams.close()


async def test_one_that_is_loading_does_not_hold_up_the_others(site: Site) -> None:
    loading = Standin(fault=Fault(status=503, retry_after="60"))
    number = await site.submit(questions(200))

    async with beside(site, loading) as both:
        assert (await both.run(number)).completed == 200

    assert site.standin.stats.received == 200
    # Those that were on their way to it before the first was turned away.
    assert loading.stats.received <= site.settings.max_in_flight


async def test_what_one_does_not_have_another_is_asked_for(site: Site) -> None:
    lacking = Standin(fault=Fault(status=404))
    number = await site.submit(questions(20))

    async with beside(site, lacking) as both:
        batch = await both.run(number)

    assert (batch.completed, batch.failed) == (20, 0)


async def test_what_none_has_is_told_with_its_status(site: Site) -> None:
    site.standin.fault = lacking = Fault(status=404)
    number = await site.submit(question("bad"))

    async with beside(site, Standin(fault=lacking)) as both:
        await both.run(number)

    (bad,) = await site.errors(number)
    assert bad["response"]["status_code"] == 404


async def test_one_that_is_silent_does_not_hold_up_a_validation(site: Site) -> None:
    number = await site.submit(question("known") + question("unknown", model="elsewhere"))

    async with _silent() as url:
        upstreams = Upstreams([url, site.url], timeout_seconds=600)
        async with asyncio.timeout(30):
            assert await replace(site, upstreams=upstreams).intake.validate_once()
        await upstreams.close()

    # The silent one may serve the model that the other doesn't know.
    assert await site.status(number) == BatchStatus.IN_PROGRESS


async def test_a_batch_expires_although_no_upstream_was_ever_there(
    site: Site, free_port: int
) -> None:
    upstreams = Upstreams([f"http://127.0.0.1:{free_port}"], timeout_seconds=10)
    deadline = int(site.clock.now()) + 60
    number = await site.submit(questions(3), expires_at=deadline)

    batch = await replace(site, upstreams=upstreams).run(number)
    await upstreams.close()

    assert batch.status == BatchStatus.EXPIRED
    assert ids(await site.errors(number)) == ["row-1", "row-2", "row-3"]


@asynccontextmanager
async def _silent() -> AsyncIterator[str]:
    """It takes connections, and never says anything."""
    async with answering(_listen_only) as url:
        yield url


async def _listen_only(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
