"""Upstreams that misbehave: what becomes of a batch's lines, and of the other upstreams."""

import asyncio
import random
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import msgspec
import pytest

from batch_api.lifecycle import BatchStatus
from batch_api.unusable import TooLate, UpstreamUnreachable, UpstreamUnusable
from batch_api.upstreams import Reply, Upstreams
from tests.listening import answering
from tests.scheduler.site import CHAT, Site, question, questions, until
from tests.standin import (
    CLOSED,
    ENDLESS,
    HALF,
    HTML,
    RESET,
    Fault,
    Standin,
    answer_to,
)

pytestmark = pytest.mark.slow

KIB = 1024
TIME_LIMIT_SECONDS = 1.0


@asynccontextmanager
async def hasty(site: Site, *urls: str, seconds: float = TIME_LIMIT_SECONDS) -> AsyncIterator[Site]:
    """The site with little patience for what it reads from these, or from its own upstream."""
    upstreams = Upstreams(
        urls or [site.url],
        timeout_seconds=seconds,
        most_in_flight=site.settings.max_in_flight,
        max_answer_bytes=64 * KIB,
    )
    yield replace(site, upstreams=upstreams)
    await upstreams.close()


@pytest.mark.parametrize(
    "fault",
    [
        ENDLESS,
        Fault(body='{"choices": ["' + "x" * 64 * KIB + '"]}'),
        Fault(body='{"choices": ["' + "x" * 8192 * KIB + '"]}', is_gzipped=True),
    ],
    ids=["endless", "announced", "gzip-bomb"],
)
async def test_an_answer_without_end_is_an_error_line(site: Site, fault: Fault) -> None:
    site.standin.fault = fault
    number = await site.submit(question("bad"))

    async with hasty(site, seconds=10) as here:
        await here.run(number)

    (bad,) = await site.errors(number)
    assert bad["error"]["code"] == "answer_too_large"
    assert str(64 * KIB) in bad["error"]["message"]
    assert site.standin.stats.received == site.settings.max_attempts


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"HTTP/1.1 two hundred\r\n\r\n", "worker_crashed"),
        (b"", "worker_crashed"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n", "answer_too_large"),
        (None, "request_timeout"),
    ],
    ids=["garbled", "closed", "endless", "hang"],
)
async def test_no_tenant_and_no_log_is_told_an_upstreams_password(
    site: Site, answer: bytes | None, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def misbehave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)

    number = await site.submit(question("bad"))
    assert await site.intake.validate_once()
    async with answering(misbehave) as url:
        address = url.removeprefix("http://")
        async with hasty(site, f"http://operator:s3cret@{address}/v1") as here:
            here = replace(here, settings=site.settings.model_copy(update={"max_attempts": 1}))
            await here.run(number)
            with pytest.raises(UpstreamUnusable) as unusable:
                await here.upstreams.models()

    (bad,) = await site.errors(number)
    assert bad["error"]["code"] == code
    for told in (str(bad), str([vars(record) for record in caplog.records]), str(unusable.value)):
        assert "operator" not in told
        assert "s3cret" not in told
        assert b64encode(b"operator:s3cret").decode() not in told
    assert address not in str(bad)


async def test_an_answer_as_long_as_the_limit_is_taken(site: Site) -> None:
    body = '{"choices": ["%s"]}'
    exactly = body % ("x" * (64 * KIB - len(body % "")))
    number = await site.submit(question("good", f"{Fault(body=exactly)}x"))

    async with hasty(site) as here:
        assert (await here.run(number)).completed == 1


async def test_a_gzipped_answer_is_an_answer(site: Site) -> None:
    number = await site.submit(question("good", f"{Fault(is_gzipped=True)}hello"))

    await site.run(number)

    (good,) = await site.output(number)
    assert good["response"]["body"]["choices"][0]["message"]["content"] == answer_to("hello")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_told_and_not_followed(site: Site, status: int) -> None:
    elsewhere = Standin()
    async with elsewhere.listening() as url:
        fault = Fault(status=status, headers={"location": f"{url}/v1/chat/completions"})
        number = await site.submit(question("bad", f"{fault}x"))
        await site.run(number)

    (bad,) = await site.errors(number)
    assert bad["response"]["status_code"] == status
    assert (site.standin.stats.received, elsewhere.stats.connections) == (1, 0)
    assert elsewhere.stats.received == 0


async def test_a_body_that_trickles_is_given_up_at_the_time_limit(site: Site) -> None:
    trickle = Fault(ending="slow", delay_ms=60_000)
    number = await site.submit(question("bad", f"{trickle}x") + questions(5))

    async with hasty(site) as here:
        batch = await here.run(number)

    (bad,) = await site.errors(number)
    assert (bad["custom_id"], bad["error"]["code"]) == ("bad", "request_timeout")
    assert batch.completed == 5


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_bytes_come_a_line_ends_with_an_error(site: Site, seed: int) -> None:
    chance = random.Random(seed)
    beginnings = [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n"]

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(chance.choice(beginnings) + chance.randbytes(chance.randrange(2000)))

    number = await site.submit(question("bad"))
    assert await site.intake.validate_once()
    async with answering(babble) as url, hasty(site, url) as here:
        batch = await here.run(number)

    assert (batch.status, batch.completed, batch.failed) == ("completed", 0, 1)


@pytest.mark.parametrize(
    "fault",
    [HTML, Fault(body="[]"), HALF, RESET, CLOSED, Fault(status=500), ENDLESS],
    ids=["html", "list", "half", "reset", "closed", "500", "endless"],
)
async def test_one_that_spoils_everything_does_not_swallow_the_lines_of_the_others(
    site: Site, fault: Fault
) -> None:
    site.standin.fault = Fault(delay_ms=5)
    broken = Standin(fault=fault)
    number = await site.submit(questions(300))

    async with broken.listening() as url, hasty(site, url, site.url, seconds=30) as both:
        batch = await both.run(number)

    assert (batch.completed, batch.failed) == (300, 0)
    assert broken.stats.received < 50


async def test_one_that_hangs_takes_the_time_limit_once_and_fails_nobody(site: Site) -> None:
    site.standin.fault = Fault(delay_ms=5)
    hangs = Standin(fault=Fault(ending="hang", is_everywhere=True))
    number = await site.submit(questions(300))

    async with hangs.listening() as url, hasty(site, url, site.url) as both:
        batch = await both.run(number)

    assert (batch.completed, batch.failed) == (300, 0)
    assert hangs.stats.received <= site.settings.max_in_flight


@pytest.mark.parametrize("fault", [HTML, HALF], ids=["html", "half-a-body"])
async def test_one_that_is_sick_gets_no_line_until_it_tells_its_models_again(
    site: Site, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    """So no line is lost to it, however long that takes."""
    caplog.set_level("INFO")
    number = await site.submit(questions(100))
    assert await site.intake.validate_once()
    site.standin.fault = msgspec.structs.replace(fault, is_everywhere=True)

    running = asyncio.create_task(site.run(number))
    await until(lambda: "upstream is down" in caplog.text)
    asked = site.standin.stats.models
    await until(lambda: site.standin.stats.models > asked)
    received = site.standin.stats.received  # what was under way has come in
    await until(lambda: site.standin.stats.models >= asked + 3)
    assert site.standin.stats.received == received < 50
    site.standin.fault = Fault()
    batch = await running

    assert (batch.completed, batch.failed) == (100, 0)
    assert "upstream is up again" in caplog.text


@pytest.mark.parametrize("status", [404, 429, 500, 503])
async def test_one_that_never_told_its_models_gets_lines_again_if_it_answers_at_all(
    site: Site, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    number = await site.submit(questions(50))
    assert await site.intake.validate_once()
    site.standin.models_fault = Fault(status=status)
    site.standin.fault = Fault(status=500)

    async with hasty(site, seconds=10) as here:
        running = asyncio.create_task(here.run(number))
        await until(lambda: "upstream is down" in caplog.text)
        site.standin.fault = Fault()
        batch = await asyncio.wait_for(running, timeout=60)

    assert (batch.completed, batch.failed) == (50, 0)
    assert "upstream is up again" in caplog.text


async def test_one_that_has_no_time_to_tell_its_models_is_asked_again_when_it_wishes(
    site: Site,
) -> None:
    site.standin.fault = Fault(status=500)
    async with hasty(site, seconds=10) as here:
        await here.upstreams.models()
        for _ in range(3):
            await _send(here.upstreams)
            await asyncio.sleep(here.upstreams.longest_rest_seconds)

        site.standin.fault = Fault()
        site.standin.models_fault = Fault(status=429, retry_after="0.01")
        with pytest.raises(UpstreamUnreachable):
            await _send(here.upstreams)
        assert site.standin.stats.received == 3
        assert here.upstreams.longest_rest_seconds <= 0.01

        site.standin.models_fault = Fault()
        await asyncio.sleep(here.upstreams.longest_rest_seconds)
        assert (await _send(here.upstreams)).status == 200


async def test_what_is_too_late_after_the_proof_is_not_sent(site: Site) -> None:
    stats = site.standin.stats
    site.standin.fault = Fault(status=500)
    async with hasty(site, seconds=10) as here:
        for _ in range(3):
            await _send(here.upstreams)
            await asyncio.sleep(here.upstreams.longest_rest_seconds)
        with pytest.raises(TooLate):
            await _send(here.upstreams, may_go=lambda: stats.models == 0)
        assert (stats.models, stats.received) == (1, 3)

        await _send(here.upstreams)
    assert (stats.models, stats.received) == (2, 4), "what was proved then is to be proved anew"


async def test_what_is_too_late_once_there_is_a_place_is_not_sent(site: Site) -> None:
    stats = site.standin.stats
    site.standin.fault = Fault(delay_ms=1000)
    upstreams = Upstreams([site.url], timeout_seconds=10, most_in_flight=1)
    first = asyncio.create_task(_send(upstreams))
    await until(lambda: stats.open == 1)
    with pytest.raises(TooLate):
        await _send(upstreams, may_go=lambda: stats.open == 1)
    await first
    await upstreams.close()

    assert stats.received == 1


async def _send(upstreams: Upstreams, *, may_go: Callable[[], bool] = lambda: True) -> Reply:
    body = b'{"messages": [{"role": "user", "content": "hi"}]}'
    return await upstreams.send(CHAT, body, priority="batch", request_id="r", may_go=may_go)


async def test_connections_that_are_closed_unanswered_lose_no_line(site: Site) -> None:
    """As an nginx does that is restarted, again and again."""
    site.standin.fault = Fault(delay_ms=2)
    number = await site.submit(questions(150))

    async def restart_now_and_then() -> None:
        for _ in range(5):
            await site.standin.has_answered(20)
            site.standin.drop_connections()

    async with asyncio.TaskGroup() as group:
        group.create_task(restart_now_and_then())
        batch = await site.run(number)

    assert (batch.completed, batch.failed) == (150, 0)
    assert site.standin.stats.received > 150


async def test_all_wait_while_all_are_down_and_go_on_by_themselves(
    site: Site, free_port: int
) -> None:
    number = await site.submit(questions(50))
    assert await site.intake.validate_once()
    late = Standin()

    async with hasty(site, f"http://127.0.0.1:{free_port}") as here:
        running = asyncio.create_task(here.run(number))
        await until(lambda: here.upstreams.count(up=False) == 1)
        assert await site.status(number) == BatchStatus.IN_PROGRESS
        async with late.listening(free_port):
            batch = await running

    assert (batch.completed, batch.failed) == (50, 0)
    assert (late.stats.received, here.upstreams.count(up=True)) == (50, 1)


async def test_one_that_is_overloaded_gets_less_at_once(site: Site) -> None:
    """It has two places, and refuses what comes beyond them."""
    site.standin.places = 2
    site.standin.fault = Fault(delay_ms=5)
    number = await site.submit(questions(60))

    batch = await site.run(number)

    assert (batch.completed, batch.failed) == (60, 0)
    assert site.standin.stats.refused < 40


async def test_a_stop_sends_nothing_that_was_waiting_for_a_place(site: Site) -> None:
    site.standin.fault = Fault(delay_ms=300)
    number = await site.submit(questions(30))
    upstreams = Upstreams([site.url], timeout_seconds=10, most_in_flight=2)

    async with replace(site, upstreams=upstreams).running():
        await until(lambda: site.standin.stats.open == 2)
    await upstreams.close()

    assert site.standin.stats.received == 2
    assert await site.counts(number) == (30, 2, 0)
