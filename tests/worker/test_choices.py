"""Several answers to one request: their places, seeds and indexes."""

import asyncio
from typing import Any

import pytest
from openai import BadRequestError, InternalServerError

from tests.worker.fake_engine import FakeEngine
from tests.worker.serving import CHAT, MODEL, Worker, chat, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def ask(worker: Worker, content: str, **options: Any) -> Any:
    return await worker.client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": content}], **options
    )


async def test_n_answers_have_the_indexes_0_to_n_and_one_prompt_in_the_usage(
    worker: Worker,
) -> None:
    answer = await ask(worker, "say one two", n=3)

    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert [choice.message.content for choice in answer.choices] == ["one two"] * 3
    assert answer.usage.prompt_tokens == len("user: say one two\n")
    assert answer.usage.completion_tokens == 9


async def test_each_of_n_seeded_answers_draws_from_its_own_seed(
    worker: Worker, engine: FakeEngine
) -> None:
    await ask(worker, "say hi", n=2, seed=7)
    await ask(worker, "say hi", n=2, seed=7)

    first, second, again, *_ = [sequence.draw() for sequence in engine.begun]
    assert first != second
    assert first == again


async def test_n_streamed_answers_come_interleaved_under_their_indexes(worker: Worker) -> None:
    stream = await ask(worker, "say one two three", n=2, stream=True)
    choices = [chunk.choices[0] async for chunk in stream]

    for index in (0, 1):
        own = [choice for choice in choices if choice.index == index]
        assert own[0].delta.role == "assistant"
        assert "".join(choice.delta.content or "" for choice in own) == "one two three"
        assert [choice.finish_reason for choice in own].count("stop") == 1
    with_text = [choice.index for choice in choices if choice.delta.content]
    assert with_text != sorted(with_text)


async def test_places_are_counted_by_answers() -> None:
    async with serving(FakeEngine(), max_waiting=2) as worker:
        with pytest.raises(BadRequestError) as caught:
            await ask(worker, "say hi", n=5)
        assert (caught.value.param, caught.value.code) == ("n", "integer_above_max_value")

        three = asyncio.create_task(worker.say("count", n=3))
        await worker.wait_for(running=2, waiting=1)
        with pytest.raises(InternalServerError) as refused:
            await ask(worker, "say hi", n=2)
        assert refused.value.status_code == 503
        three.cancel()
        await worker.wait_for(running=0)
        assert len((await ask(worker, "say hi", n=4)).choices) == 4


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_frees_all_its_places(stream: bool) -> None:
    async with serving(FakeEngine(), max_waiting=2) as worker:
        asking = asyncio.create_task(
            worker.session.post(CHAT, json=chat("count", n=4, stream=stream)).__aenter__()
        )
        await worker.wait_for(running=2, waiting=2)

        if stream:
            (await asking).close()
        else:
            asking.cancel()

        await worker.wait_for(running=0)
        assert len((await ask(worker, "say hi", n=4)).choices) == 4


async def test_more_logprobs_than_memory_should_hold_are_refused(worker: Worker) -> None:
    with pytest.raises(BadRequestError) as caught:
        await ask(worker, "say hi", n=100, logprobs=True, top_logprobs=20)

    assert (caught.value.param, caught.value.code) == ("logprobs", "integer_above_max_value")


async def test_what_the_engine_refuses_of_n_answers_refuses_them_all(worker: Worker) -> None:
    with pytest.raises(BadRequestError, match="there is no room for it"):
        await ask(worker, "it does not fit", n=3)

    await worker.wait_for(running=0)


async def test_a_failing_engine_is_told_once_for_n_streamed_answers() -> None:
    async with (
        serving(FakeEngine()) as worker,
        await worker.say("break after a b", stream=True, n=2) as answer,
    ):
        events = (await answer.text()).split("\n\n")

    assert [event for event in events if '"error"' in event] == events[-2:-1]
