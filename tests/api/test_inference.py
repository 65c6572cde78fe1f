"""Single requests: what the upstream says is what the client gets."""

import asyncio
from collections.abc import AsyncIterator

import openai
import pytest

from batch_api.settings import MIB
from tests.api.conftest import Site
from tests.api.upstream import EVENTS, JSON

CHAT = "/v1/chat/completions"
FIRST = b'data: {"id": "1", "choices": [{"index": 0, "delta": {"content": "He"}}]}\n\n'
SECOND = b'data: {"id": "1", "choices": [{"index": 0, "delta": {"content": "llo"}}]}\n\n'
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    "path",
    [
        CHAT,
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/v1/moderations",
        "/v1/images/generations",
        "/v1/images/edits",
        "/v1/videos",
    ],
)
async def test_a_request_reaches_the_upstream_byte_for_byte(site: Site, path: str) -> None:
    body = b'{ "model": "m",\n "n": 123456789012345678901234567890.10, "\\ud800": "\xff" }'
    site.upstream.answer(b'{"a": ', b"1}")

    async with site.http.post(path, data=body) as response:
        assert (response.status, await response.read()) == (200, b'{"a": 1}')

    (received,) = site.upstream.received
    assert (received.line, received.body) == (f"POST {path} HTTP/1.1", body)
    assert received.headers["content-type"] == "application/json"
    assert received.headers["x-batch-api-priority"] == "interactive"
    assert received.headers["x-request-id"] == response.headers["x-request-id"]


async def test_an_error_of_the_upstream_is_passed_on_with_its_advice(site: Site) -> None:
    site.upstream.status = 429
    site.upstream.headers = JSON | {"retry-after": "7", "x-should-retry": "false", "server": "x"}
    site.upstream.answer(b'{"error": {"message": "later", "code": "slow_down"}}')

    with pytest.raises(openai.RateLimitError) as limited:
        await site.client.chat.completions.create(model="m", messages=[])

    assert limited.value.code == "slow_down"
    assert limited.value.request_id
    headers = limited.value.response.headers
    assert (headers["retry-after"], headers["x-should-retry"]) == ("7", "false")
    assert "server" not in headers or headers["server"] != "x"


async def test_a_form_reaches_the_upstream_as_a_form(site: Site) -> None:
    site.upstream.answer(b'{"created": 1, "data": []}')

    await site.client.images.edit(image=("a.png", b"pixels"), prompt="a duck", model="m")

    (received,) = site.upstream.received
    assert received.line == "POST /v1/images/edits HTTP/1.1"
    assert received.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert b"pixels" in received.body


@pytest.mark.parametrize(("told", "passed_on"), [("3600", "120"), ("0.5", "0.5"), (None, "1")])
@pytest.mark.parametrize("status", [429, 503])
async def test_a_wish_for_patience_is_never_longer_than_the_sdk_has(
    site: Site, status: int, told: str | None, passed_on: str
) -> None:
    site.upstream.status = status
    site.upstream.headers = JSON | ({"retry-after": told} if told else {})
    site.upstream.answer(b"{}")

    async with site.http.post(CHAT, data=b"{}") as response:
        assert (response.status, response.headers["retry-after"]) == (status, passed_on)


async def test_the_sdk_gets_its_answer_once_an_upstream_has_room_again(site: Site) -> None:
    site.upstream.status, site.upstream.headers = 503, JSON | {"retry-after": "0.01"}
    seen = 0

    async def script() -> AsyncIterator[bytes]:
        nonlocal seen
        seen += 1
        site.upstream.status = 200
        yield b'{"id": "1", "choices": []}'

    site.upstream.script = script
    answer = await site.client.with_options(max_retries=2).chat.completions.create(
        model="m", messages=[]
    )

    assert (answer.id, seen) == ("1", 2)


async def test_a_stream_arrives_event_by_event(site: Site) -> None:
    first_seen = asyncio.Event()

    async def script() -> AsyncIterator[bytes]:
        yield FIRST
        await first_seen.wait()
        yield SECOND[:20]
        yield SECOND[20:] + DONE

    site.upstream.headers, site.upstream.script = EVENTS, script

    words = []
    async for chunk in await site.client.chat.completions.create(
        model="m", messages=[], stream=True
    ):
        words.append(chunk.choices[0].delta.content)
        first_seen.set()

    assert words == ["He", "llo"]


async def test_the_raw_stream_is_the_upstreams(site: Site) -> None:
    site.upstream.headers = EVENTS
    site.upstream.answer(FIRST, SECOND, DONE.rstrip())

    async with site.http.post(CHAT, data=b"{}") as response:
        assert await response.read() == FIRST + SECOND + DONE.rstrip()

    assert response.content_type == "text/event-stream"


async def test_a_stream_that_breaks_ends_with_an_error_event(site: Site) -> None:
    site.upstream.headers = EVENTS
    site.upstream.breaks = True
    site.upstream.answer(FIRST, SECOND[:30])

    stream = await site.client.chat.completions.create(model="m", messages=[], stream=True)
    first = await anext(stream)
    with pytest.raises(openai.APIError, match="broke off") as broken:
        await anext(stream)

    assert first.choices[0].delta.content == "He"
    assert broken.value.code == "upstream_broke"


@pytest.mark.parametrize("headers", [JSON, EVENTS])
@pytest.mark.parametrize("pieces", [[], [b'data: {"half']])
async def test_an_answer_that_breaks_before_anything_was_passed_on_is_a_502(
    site: Site, headers: dict[str, str], pieces: list[bytes]
) -> None:
    site.upstream.headers = headers
    site.upstream.breaks = True
    site.upstream.answer(*pieces)

    async with site.http.post(CHAT, data=b"{}") as response:
        error = (await response.json())["error"]

    assert (response.status, error["type"]) == (502, "server_error")


async def test_without_an_upstream_the_client_shall_come_back(site: Site) -> None:
    await site.upstream.stop()

    with pytest.raises(openai.InternalServerError) as unavailable:
        await site.client.chat.completions.create(model="m", messages=[])

    assert unavailable.value.status_code == 503
    assert unavailable.value.response.headers["retry-after"] == "1"
    assert unavailable.value.code == "server_is_overloaded"


async def test_a_client_that_leaves_while_it_waits_frees_the_upstream(site: Site) -> None:
    asking = asyncio.create_task(site.client.chat.completions.create(model="m", messages=[]))
    await site.upstream.arrived.wait()

    asking.cancel()

    await asyncio.wait_for(site.upstream.abandoned.wait(), timeout=5)


async def test_a_client_that_leaves_in_the_middle_of_a_stream_frees_the_upstream(
    site: Site,
) -> None:
    async def script() -> AsyncIterator[bytes]:
        yield FIRST
        await asyncio.Event().wait()

    site.upstream.headers, site.upstream.script = EVENTS, script
    stream = await site.client.chat.completions.create(model="m", messages=[], stream=True)
    await anext(stream)

    await stream.close()

    await asyncio.wait_for(site.upstream.abandoned.wait(), timeout=5)


@pytest.mark.parametrize("is_announced", [True, False])
async def test_a_body_over_the_limit_is_refused_and_never_passed_on(
    site: Site, is_announced: bool
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(17):
            yield b" " * (MIB // 16)

    headers = {"content-length": str(17 * MIB // 16)} if is_announced else {}
    async with site.http.post(CHAT, data=chunks(), headers=headers) as response:
        error = (await response.json())["error"]

    assert (response.status, error["type"]) == (413, "invalid_request_error")
    assert site.upstream.received == []


async def test_a_connection_that_closes_unanswered_is_tried_once_more(site: Site) -> None:
    """An nginx that restarts; an idle connection that was closed in this very moment."""

    async def script() -> AsyncIterator[bytes]:
        site.upstream.breaks = len(site.upstream.received) == 1
        if not site.upstream.breaks:
            yield b'{"id": "1", "choices": []}'

    site.upstream.script = script

    answer = await site.client.chat.completions.create(model="m", messages=[])

    assert (answer.id, len(site.upstream.received)) == ("1", 2)


async def test_an_answer_of_which_something_came_is_not_asked_for_again(site: Site) -> None:
    site.upstream.breaks = True
    site.upstream.answer(b'{"id": ')

    async with site.http.post(CHAT, data=b"{}") as response:
        assert response.status == 502

    assert len(site.upstream.received) == 1


@pytest.mark.parametrize("headers", [JSON, EVENTS], ids=["whole", "one-line-of-a-stream"])
async def test_an_answer_without_end_is_a_502(site: Site, headers: dict[str, str]) -> None:
    async def script() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536

    site.upstream.headers, site.upstream.script = headers, script

    async with site.http.post(CHAT, data=b"{}") as response:
        error = (await response.json())["error"]

    assert (response.status, error["code"]) == (502, "answer_too_large")
    assert response.headers["x-should-retry"] == "false"


async def test_a_stream_may_be_longer_than_a_whole_answer(site: Site) -> None:
    line = b"data: " + b"x" * 65528 + b"\n\n"
    site.upstream.headers = EVENTS
    site.upstream.answer(*[line] * 40)

    async with site.http.post(CHAT, data=b"{}") as response:
        assert len(await response.read()) == 40 * len(line) > 2 * MIB
