"""Streamed answers, over the SDK and as they are on the wire, from the fake engine."""

import asyncio
import json
from typing import Any

import pytest
from openai import APIError, BadRequestError, InternalServerError

from tests.worker.fake_engine import FakeEngine
from tests.worker.serving import CHAT, MODEL, Worker, chat, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def chunks(worker: Worker, content: str, **options: Any) -> list[Any]:
    stream: Any = await worker.client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": content}], stream=True, **options
    )
    return [chunk async for chunk in stream]


async def test_the_role_comes_first_then_the_text_then_the_finish_reason(worker: Worker) -> None:
    first, *middle, last = await chunks(worker, "say one two three")

    assert first.object == "chat.completion.chunk"
    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "")
    assert "".join(chunk.choices[0].delta.content for chunk in middle) == "one two three"
    assert all(chunk.choices[0].finish_reason is None for chunk in [first, *middle])
    assert last.choices[0].finish_reason == "stop"
    assert last.choices[0].delta.to_dict() == {}


async def test_all_chunks_share_their_id_their_moment_and_their_model(worker: Worker) -> None:
    received = await chunks(worker, "say one two three")

    assert len({(chunk.id, chunk.created, chunk.model) for chunk in received}) == 1
    assert received[0].id.startswith("chatcmpl-")


async def test_without_include_usage_there_is_no_usage_key(worker: Worker) -> None:
    received = await chunks(worker, "say one two three")

    assert all("usage" not in chunk.to_dict() for chunk in received)


async def test_with_include_usage_the_last_chunk_has_it_and_no_choices(worker: Worker) -> None:
    *others, last = await chunks(
        worker, "say one two three", stream_options={"include_usage": True}
    )

    assert last.choices == []
    assert last.usage.prompt_tokens == len("user: say one two three\n")
    assert last.usage.completion_tokens == 4
    assert all(chunk.usage is None and chunk.choices for chunk in others)


async def test_the_wire_is_server_sent_events_that_end_with_done(worker: Worker) -> None:
    async with await worker.say("count", stream=True, max_tokens=3) as answer:
        assert answer.status == 200
        assert answer.content_type == "text/event-stream"
        assert answer.headers["x-request-id"]
        events = (await answer.text()).split("\n\n")

    assert events[-2:] == ["data: [DONE]", ""]
    bodies = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert [body["choices"][0]["finish_reason"] for body in bodies[-2:]] == [None, "length"]


async def test_an_error_before_the_first_token_has_a_status() -> None:
    async with serving(FakeEngine()) as worker:
        with pytest.raises(BadRequestError):
            await chunks(worker, "refuse me")
        with pytest.raises(InternalServerError):
            await chunks(worker, "break")


async def test_an_error_in_the_middle_of_a_stream_reaches_the_sdk() -> None:
    async with serving(FakeEngine()) as worker:
        with pytest.raises(APIError, match="The engine failed"):
            await chunks(worker, "break after a b c")


async def test_many_streams_at_once_are_not_mixed_up(worker: Worker) -> None:
    received = await asyncio.gather(*(chunks(worker, f"say {n} {n} {n}") for n in range(20)))

    for n, each in enumerate(received):
        text = "".join(chunk.choices[0].delta.content or "" for chunk in each)
        assert text == f"{n} {n} {n}"


async def test_the_sdk_s_stream_helper_works(worker: Worker) -> None:
    async with worker.client.chat.completions.stream(
        model=MODEL, messages=[{"role": "user", "content": "say one two"}]
    ) as stream:
        completion = await stream.get_final_completion()

    assert completion.choices[0].message.content == "one two"


async def test_a_client_that_leaves_a_stream_frees_its_place(worker: Worker) -> None:
    answer = await worker.say("count", stream=True)
    await answer.content.readline()
    await worker.wait_for(running=1)

    answer.close()

    await worker.wait_for(running=0)


async def test_a_client_that_leaves_while_it_waits_for_a_stream_frees_its_place(
    worker: Worker,
) -> None:
    running = [await worker.say("count", stream=True) for _ in range(2)]
    waiting = asyncio.create_task(
        worker.session.post(CHAT, json=chat("count", stream=True)).__aenter__()
    )
    await worker.wait_for(running=2, waiting=1)

    waiting.cancel()

    await worker.wait_for(running=2, waiting=0)
    for answer in running:
        answer.close()
    await worker.wait_for(running=0)
