"""Two upstreams with a model each, of which one hangs: the lines of the other's go on."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from aiohttp import web

from batch_api.unusable import UpstreamAway, UpstreamBroke
from batch_api.upstreams import Reply, Upstreams
from tests.scheduler.site import CHAT, until
from tests.scheduler.test_blame import served

pytestmark = pytest.mark.slow

TIME_LIMIT_SECONDS = 4
MOST = 8


class Hanging:
    """It has the model `b`, and never answers who asks for it."""

    def __init__(self) -> None:
        self.asked = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if (await request.json())["model"] != "b":
            return web.json_response({"error": {}}, status=404)
        self.asked += 1
        await asyncio.Event().wait()
        raise AssertionError


class Answering:
    """It has the model `a`."""

    def __init__(self) -> None:
        self.refused = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if (await request.json())["model"] != "a":
            self.refused += 1
            return web.json_response({"error": {}}, status=404)
        return web.json_response({"model": "a", "choices": []})


@pytest.fixture
def hanging() -> Hanging:
    return Hanging()


@pytest.fixture
def answering() -> Answering:
    return Answering()


@pytest.fixture
async def upstreams(answering: Answering, hanging: Hanging) -> AsyncIterator[Upstreams]:
    async with served(answering.answer) as a, served(hanging.answer) as b:
        both = Upstreams([a, b], timeout_seconds=TIME_LIMIT_SECONDS, most_in_flight=MOST)
        yield both
        await both.close()


async def send(upstreams: Upstreams, model: str, *, suspicion: int = 0) -> Reply:
    body = msgspec.json.encode({"model": model, "messages": []})
    return await upstreams.send(
        CHAT, body, priority="batch", request_id="r", may_go=lambda: True, suspicion=suspicion
    )


async def test_while_one_line_tries_it_the_others_give_up_their_lanes(
    upstreams: Upstreams, hanging: Hanging
) -> None:
    with pytest.raises(UpstreamBroke):
        await send(upstreams, "b")
    await asyncio.sleep(upstreams.longest_rest_seconds)

    trial = asyncio.create_task(send(upstreams, "b"))
    await until(lambda: hanging.asked == 2)
    for suspicion in range(3):
        with pytest.raises(UpstreamAway):
            await send(upstreams, "b", suspicion=suspicion)
        assert (await send(upstreams, "a", suspicion=suspicion)).status == 200

    assert not trial.done()
    with pytest.raises(UpstreamBroke):
        await trial


async def test_who_waits_to_be_alone_there_holds_up_nobody_elsewhere(
    upstreams: Upstreams, answering: Answering, hanging: Hanging
) -> None:
    first = asyncio.create_task(send(upstreams, "b"))
    await until(lambda: hanging.asked == 1)
    refused = answering.refused
    suspect = asyncio.create_task(send(upstreams, "b", suspicion=4))
    await until(lambda: answering.refused == refused + 1)  # and so it waits for the other one

    assert (await send(upstreams, "a")).status == 200

    assert not first.done()
    assert not suspect.done()
    await asyncio.wait((first, suspect))
    assert isinstance(first.exception(), UpstreamBroke)
    assert isinstance(suspect.exception(), UpstreamAway | UpstreamBroke)


async def test_that_it_lacks_a_model_is_no_sign_that_it_thinks(hanging: Hanging) -> None:
    async with served(hanging.answer) as url:
        upstreams = Upstreams([url], timeout_seconds=TIME_LIMIT_SECONDS, most_in_flight=MOST)
        line = asyncio.create_task(send(upstreams, "b"))
        await until(lambda: hanging.asked == 1)
        assert (await send(upstreams, "a")).status == 404

        await asyncio.wait((line,))
        assert isinstance(line.exception(), UpstreamBroke)
        assert upstreams.count(up=False) == 1

        await asyncio.sleep(upstreams.longest_rest_seconds)
        assert (await send(upstreams, "a")).status == 404
        assert upstreams.count(up=False) == 1
        await upstreams.close()
