"""The stand-in upstream itself: what the fault tests lean on."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from openai import AsyncOpenAI

from tests.server import StandinProcess
from tests.standin import (
    BROKEN_JSON,
    HALF,
    HANG,
    HTML,
    MODEL,
    RESET,
    Fault,
    Standin,
    answer_to,
    split_fault,
)


@pytest.fixture
def standin(tmp_path: Path) -> Standin:
    return Standin(journal=tmp_path / "journal")


@pytest.fixture
async def url(standin: Standin) -> AsyncIterator[str]:
    async with standin.listening() as url:
        yield url


@pytest.fixture
async def session(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(url, timeout=timeout) as session:
        yield session


async def ask(session: aiohttp.ClientSession, content: str) -> tuple[int, bytes]:
    body = {"model": MODEL, "messages": [{"role": "user", "content": content}]}
    async with session.post("/v1/chat/completions", json=body) as response:
        return response.status, await response.read()


async def test_the_sdk_gets_an_answer_that_follows_from_the_question(url: str) -> None:
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="sk-test") as client:
        models = await client.models.list()
        completion = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": 'Grüße "an" alle'}]
        )

    assert [model.id for model in models.data] == [MODEL]
    assert completion.choices[0].message.content == answer_to('Grüße "an" alle')
    assert completion.usage is not None
    assert completion.usage.total_tokens == 6


async def test_each_request_stands_in_the_journal(
    standin: Standin, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    await asyncio.gather(*(ask(session, f"line {n}") for n in range(50)))

    journal = (tmp_path / "journal").read_text().splitlines()
    assert sorted(journal) == sorted(
        f"{event} line {n}" for n in range(50) for event in ("received", "answered")
    )
    assert (standin.stats.received, standin.stats.answered, standin.stats.open) == (50, 50, 0)


async def test_a_fault_with_times_gives_way_to_a_good_answer(
    session: aiohttp.ClientSession,
) -> None:
    fault = Fault(status=503, retry_after="1", times=2)
    statuses = [(await ask(session, f"{fault}hello"))[0] for _ in range(3)]

    assert statuses == [503, 503, 200]


async def test_an_answer_can_be_anything(session: aiohttp.ClientSession) -> None:
    assert await ask(session, f"{HTML}x") == (200, HTML.body.encode() if HTML.body else b"")
    assert (await ask(session, f"{BROKEN_JSON}x"))[1].startswith(b'{"id"')
    assert (await ask(session, f"{Fault(status=400)}x"))[0] == 400


async def test_a_slow_body_arrives_whole(session: aiohttp.ClientSession) -> None:
    fault = Fault(ending="slow", delay_ms=30)
    status, body = await ask(session, f"{fault}hello")

    assert status == 200
    assert answer_to("hello").encode() in body


@pytest.mark.parametrize("fault", [HALF, RESET])
async def test_a_body_can_break_off(
    session: aiohttp.ClientSession, standin: Standin, fault: Fault
) -> None:
    with pytest.raises(aiohttp.ClientError):
        await ask(session, f"{fault}x")
    assert (standin.stats.received, standin.stats.answered) == (1, 0)


async def test_a_client_that_gives_up_is_no_longer_open(
    session: aiohttp.ClientSession, standin: Standin
) -> None:
    asking = asyncio.create_task(ask(session, f"{HANG}x"))
    while standin.stats.open == 0:  # noqa: ASYNC110 a socket rings no bell
        await asyncio.sleep(0.01)
    asking.cancel()
    while standin.stats.open == 1:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await ask(session, "another")

    assert (standin.stats.received, standin.stats.answered, standin.stats.open) == (2, 1, 0)


def test_a_fault_survives_being_written_into_a_message() -> None:
    fault = Fault(status=429, retry_after="2", body="a >> b", times=1)
    assert split_fault(f"{Fault(status=429)}text") == (Fault(status=429), "text")
    assert split_fault("text") == (None, "text")
    assert split_fault(f"{fault}text") == (fault, "text")


def test_it_counts_what_a_process_was_sent(tmp_path: Path) -> None:
    with StandinProcess(tmp_path, delay_ms=5) as standin:
        body = b'{"model":"stand-in","messages":[{"role":"user","content":"hello"}]}'
        standin.fetch("/v1/chat/completions", method="POST", body=body)

        assert standin.stats().most_open == 1
        assert standin.seen() == [("received", "hello"), ("answered", "hello")]
