"""Which worker gets a request, and when it is sent again."""

import asyncio
import json

import pytest

from tests.nginx.conftest import CHAT, Site
from tests.standin import CLOSED, HALF, MODEL, Fault, answer_to

_LOOK_SECONDS = 0.01


async def test_who_has_least_to_do_is_asked(site: Site) -> None:
    slow = Fault(delay_ms=2_000)
    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(site.ask(f"{slow}{number}"))
        while sum(site.received) < 8:  # noqa: ASYNC110 by another process
            await asyncio.sleep(_LOOK_SECONDS)

        assert site.received == [4, 4]


async def test_connections_to_workers_are_used_again(site: Site) -> None:
    for number in range(20):
        assert (await site.ask(f"{number}")).status == 200

    # One at a time, for each of nginx's own processes.
    assert sum(standin.stats.connections for standin in site.standins) <= 4


async def test_a_worker_that_says_503_is_left_alone_and_another_one_asked(site: Site) -> None:
    site.standins[0].fault = Fault(status=503)

    answers = [await site.ask(f"{number}") for number in range(30)]

    assert {answer.status for answer in answers} == {200}
    assert site.standins[1].stats.received == 30
    assert 1 <= site.standins[0].stats.received <= 5


async def test_a_worker_that_breaks_off_before_its_answer_costs_nobody_an_error(site: Site) -> None:
    site.standins[0].fault = CLOSED

    answers = [await site.ask(f"{number}") for number in range(30)]

    assert {answer.status for answer in answers} == {200}
    assert site.standins[1].stats.received == 30


async def test_a_request_is_run_at_two_workers_at_most(site: Site) -> None:
    assert (await site.ask(f"{CLOSED}poison")).status == 502

    assert site.received == [1, 1]


async def test_an_answer_that_has_begun_is_never_asked_for_again(site: Site) -> None:
    with pytest.raises(Exception, match="payload"):
        await site.ask(f"{HALF}hi")

    assert sum(site.received) == 1


@pytest.mark.parametrize("directives", [{"client_body_buffer_size": "1k"}])
async def test_a_long_request_is_sent_again_whole(site: Site) -> None:
    """Also one that nginx keeps in a file meanwhile."""
    site.standins[0].fault = CLOSED
    text = "x" * 1_000_000

    for _ in range(2):
        answer = await site.ask(text)
        assert (await answer.json())["choices"][0]["message"]["content"] == text


async def test_an_answer_comes_on_piece_by_piece(site: Site) -> None:
    slow = Fault(ending="slow", delay_ms=1_000)
    body = {"model": MODEL, "messages": [{"role": "user", "content": f"{slow}{'hi ' * 100}"}]}

    async with site.session.post(CHAT, json=body) as answer:
        first = await answer.content.readany()
        was_open = sum(standin.stats.open for standin in site.standins)
        rest = await answer.content.read()

    assert first
    assert was_open == 1
    content = json.loads(first + rest)["choices"][0]["message"]["content"]
    assert content == answer_to("hi " * 100)


async def test_a_client_that_leaves_is_gone_at_the_worker_too(site: Site) -> None:
    asking = asyncio.create_task(site.ask(f"{Fault(delay_ms=60_000)}hi"))
    while not sum(site.received):  # noqa: ASYNC110
        await asyncio.sleep(_LOOK_SECONDS)

    asking.cancel()

    async with asyncio.timeout(20):
        while sum(standin.stats.open for standin in site.standins):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)
